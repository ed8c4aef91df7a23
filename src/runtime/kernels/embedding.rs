//! The gradient of an embedding table: rows are added up by the id that looked them up.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, each, error, input, output, require};
use super::math;
use crate::memory::{clear_sparse, will_read};

/// The table is walked in at most this many blocks of rows.
const BLOCKS: usize = 64;
/// Tables from so many elements on (32 MB) take memory for their written pages only. Below it, to
/// give pages back and to get them again takes longer than to write zeros.
const SPARSE: usize = 8 << 20;

/// y = table[ids]        dtable[id] = Σ over the places of id: dy
///
/// Each block of the table is cleared and filled by one thread, in the order of `ids`. In large
/// tables rows that no id names take no memory.
pub(super) fn embedding_grad(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    input!(cx, 0, i64 => ids);
    input!(cx, 1, f32 => rows);
    input!(cx, 2, f32 => table);
    let ((_, ids), (_, rows), (dims, _)) = (ids, rows, table);
    require(dims.len() == 2, "the table has not two dimensions")?;
    let (height, width) = (dims[0], dims[1] as usize);
    require(ids.len() * width == rows.len(), "not one row per id")?;
    if let Some(id) = ids.iter().find(|&&id| !(-height..height).contains(&id)) {
        return Err(error(&format!("id {id} is not in a table of {height} rows")));
    }
    output!(cx, 0, dims => out);
    let Some(out) = out else { return Ok(()) };
    if out.is_empty() {
        return Ok(());
    }
    let is_sparse = out.len() >= SPARSE;
    let block = (height as usize).div_ceil(BLOCKS);
    let parts = out.chunks_mut(block * width).collect();
    each(cx, parts, |i, out: &mut [f32]| {
        if is_sparse {
            clear_sparse(out);
        } else {
            out.fill(0.0);
        }
        let first = i * block;
        let here = first..first + out.len() / width;
        for (&id, row) in ids.iter().zip(rows.chunks(width)) {
            // Negative ids count from the end.
            let id = (if id < 0 { id + height } else { id }) as usize;
            if here.contains(&id) {
                let at = (id - first) * width;
                math::add(&mut out[at..at + width], row);
            }
        }
        if is_sparse {
            will_read(out);
        }
    })
}

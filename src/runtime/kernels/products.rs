//! What operators of products of matrices share: their inputs, and how results are written.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, error, input, output, require, try_each};

/// Parts of a result are worked on in at most so many groups, for to wait until streamed results
/// are written takes as long as a part of one.
pub(super) const GROUPS: usize = 32;
/// Results from so many elements on (1 MB) are written past the caches, which would not hold them
/// until they are read: what is overwritten is not read first.
pub(super) const STREAMED: usize = 1 << 18;

/// y = alpha op(a) op(b) + row, where op transposes what the flags say.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    /// m, n, k: y is `[m, n]`, op(a) `[m, k]`, op(b) `[k, n]`.
    pub(super) sizes: (usize, usize, usize),
    pub(super) trans: (bool, bool),
    pub(super) alpha: f32,
    /// n numbers, or none.
    pub(super) row: &'a [f32],
}

/// Calls its second argument for each number below its first, on several threads.
pub(super) type Parallel<'a> =
    dyn Fn(usize, &(dyn Fn(usize) -> KernelResult + Sync)) -> KernelResult + 'a;

/// Reads the inputs of a node, with a row as the third where `has_row`, and calls `work` for its
/// output.
pub(super) fn compute(
    cx: &ComputeContext,
    attributes: &KernelAttributes,
    has_row: bool,
    work: fn(&Operands, &mut [f32], &Parallel) -> KernelResult,
) -> KernelResult {
    input!(cx, 0, f32 => a);
    input!(cx, 1, f32 => b);
    let mut row = Vec::new();
    if has_row {
        input!(cx, 2, f32 => given);
        row.try_reserve_exact(given.1.len()).map_err(|_| error("out of memory"))?;
        row.extend(given.1.iter().map(|c| attributes.beta * c));
    }
    let sizes = |dims: &[i64], transposed: bool| match *dims {
        [x, y] if transposed => Ok((y as usize, x as usize)),
        [x, y] => Ok((x as usize, y as usize)),
        _ => Err(error("a factor is not a matrix")),
    };
    let (m, k) = sizes(a.0, attributes.trans_a)?;
    let (k_b, n) = sizes(b.0, attributes.trans_b)?;
    require(k == k_b, "the factors do not fit")?;
    require(!has_row || row.len() == n, "the row is not as long as the result is wide")?;
    output!(cx, 0, [m as i64, n as i64] => y);
    let Some(y) = y else { return Ok(()) };
    let operands = Operands {
        a: a.1,
        b: b.1,
        sizes: (m, n, k),
        trans: (attributes.trans_a, attributes.trans_b),
        alpha: attributes.alpha,
        row: &row,
    };
    let parallel = |n: usize, work: &(dyn Fn(usize) -> KernelResult + Sync)| {
        try_each(cx, (0..n).collect(), |_, i| work(i))
    };
    work(&operands, y, &parallel)
}

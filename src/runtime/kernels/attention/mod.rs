//! Attention without the matrix of scores: the forward part keeps the result and two numbers for
//! each query, and the backward part computes probabilities again, block by block, with dropout's
//! mask drawn again from its seed (Dao et al., 2022, "FlashAttention", arXiv:2205.14135).
//!
//! s = scale · q kᵀ + mask, p = e^(s − max) / Σ e^(s − max), o = (p m) v with dropout's m, a head:
//! dv = (p m)ᵀ do, ds = p (m (do vᵀ) − Σ do · o), dq = scale · ds k, dk = scale · dsᵀ q.

mod heads;
pub(super) mod rows;
mod standard;

use ort::operator::ComputeContext;

use super::dropout;
use super::kernel::{
    KernelAttributes, KernelResult, each, error, input, output, require, try_each,
};
use super::pool::Pool;
use super::tiles::Isa;
use crate::memory::zeros;
use heads::{Attention, Dropout, Mask, Result, Shared, Sizes, Task};
pub(super) use standard::{
    ATTRIBUTES, attention as standard_form, attention_grad as standard_grad,
};

/// Where there are fewer heads in a batch than this, a head's queries are several tasks.
const TASKS: usize = 16;
/// Working memory of tasks: each at most 8 MiB.
static POOL: Pool<f32> = Pool::new(0.0, 1 << 21);

/// A tensor's shape and data.
type View<'a> = (&'a [i64], &'a [f32]);

/// Checks q, k, v, mask and seed.
fn attention_of<'a>(
    [q, k, v, mask]: [View<'a>; 4],
    seed: &[i64],
    attributes: &KernelAttributes,
) -> KernelResult<Attention<'a>> {
    let dims = |dims: &[i64]| -> KernelResult<[usize; 4]> {
        let dims: [i64; 4] = dims.try_into().map_err(|_| error("q, k or v has not four axes"))?;
        Ok(dims.map(|d| d as usize))
    };
    let [batch, queries, heads, width] = dims(q.0)?;
    let (k_dims, v_dims) = (dims(k.0)?, dims(v.0)?);
    let (keys, value_width) = (k_dims[1], v_dims[3]);
    require(k_dims == [batch, keys, heads, width], "q and k do not fit")?;
    require(v_dims == [batch, keys, heads, value_width], "k and v do not fit")?;
    require(keys > 0 && width > 0 && value_width > 0, "there are no keys, or they have no width")?;
    require(seed.len() == 1, "the seed is not one number")?;
    require((0.0..1.0).contains(&attributes.ratio), "the ratio is not in [0, 1)")?;
    let sizes = Sizes { batch, heads, queries, keys, width, value_width };
    let steps = steps(mask.0, [batch, heads, queries, keys]);
    let steps = steps.ok_or_else(|| error("the mask does not fit the scores"))?;
    let dropout = (attributes.ratio > 0.0).then(|| Dropout {
        first: dropout::first_position(attributes.salt, seed[0]),
        least: dropout::threshold(attributes.ratio) as u32,
        scale: 1.0 / (1.0 - attributes.ratio),
    });
    Ok(Attention {
        sizes,
        q: q.1,
        k: k.1,
        v: v.1,
        mask: Mask { data: mask.1, steps },
        scale: attributes.scale,
        dropout,
        empty_is_zero: attributes.empty_is_zero,
        isa: Isa::best(),
    })
}

/// From element to element along each axis of `to`, 0 where `dims` is broadcast; `None` where it
/// cannot be.
fn steps(dims: &[i64], to: [usize; 4]) -> Option<[usize; 4]> {
    let missing = to.len().checked_sub(dims.len())?;
    let (mut steps, mut step) = ([0; 4], 1);
    for (axis, &d) in dims.iter().enumerate().rev() {
        let (d, at) = (d as usize, missing + axis);
        if d != 1 {
            if d != to[at] {
                return None;
            }
            steps[at] = step;
        }
        step *= d;
    }
    Some(steps)
}

/// The heads of all samples, each in so many parts of its queries.
fn tasks(sizes: &Sizes) -> (Vec<Task>, usize) {
    let (n_heads, queries) = (sizes.batch * sizes.heads, sizes.queries);
    let n_blocks = queries.div_ceil(sizes.block());
    let n_parts = TASKS.div_ceil(n_heads.max(1)).min(n_blocks).max(1);
    let part = queries.div_ceil(n_parts).next_multiple_of(sizes.block());
    let of_head = |i: usize| {
        (0..n_parts).map(move |p| Task {
            b: i / sizes.heads,
            h: i % sizes.heads,
            queries: (p * part).min(queries)..((p + 1) * part).min(queries),
        })
    };
    ((0..n_heads).flat_map(of_head).collect(), n_parts)
}

/// Runs `work` for each task with working memory of `n` elements.
fn run(
    cx: &ComputeContext,
    tasks: Vec<Task>,
    n: usize,
    work: impl Fn(usize, Task, &mut [f32]) + Sync + Send,
) -> KernelResult {
    try_each(cx, tasks, |i, task| {
        work(i, task, &mut POOL.block(n)?);
        Ok(())
    })
}

/// o, the largest score of each query, and 1 / Σ e^(score − max)
pub(super) fn attention(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => q);
    input!(cx, 1, f32 => k);
    input!(cx, 2, f32 => v);
    input!(cx, 3, f32 => mask);
    input!(cx, 4, i64 => seed);
    let views = [(&q.0[..], q.1), (&k.0[..], k.1), (&v.0[..], v.1), (&mask.0[..], mask.1)];
    let of = attention_of(views, seed.1, attributes)?;
    let sizes = of.sizes;
    let as_dims = |dims: [usize; 4]| dims.map(|d| d as i64);
    let row = as_dims([sizes.batch, sizes.heads, sizes.queries, 1]);
    output!(cx, 0, as_dims([sizes.batch, sizes.queries, sizes.heads, sizes.value_width]) => o);
    output!(cx, 1, row => max);
    output!(cx, 2, row => inverse);
    let (Some(o), Some(max), Some(inverse)) = (o, max, inverse) else { return Ok(()) };
    let (o, rows) = (Shared::new(o), (Shared::new(max), Shared::new(inverse)));
    run(cx, tasks(&sizes).0, sizes.forward_room(), |_, task, room| {
        // SAFETY: the outputs live until this function ends; no two tasks have a query in common.
        unsafe { of.forward(&task, room, o, rows) };
    })
}

/// dq, dk, dv
pub(super) fn attention_grad(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => dy);
    input!(cx, 1, f32 => q);
    input!(cx, 2, f32 => k);
    input!(cx, 3, f32 => v);
    input!(cx, 4, f32 => mask);
    input!(cx, 5, i64 => seed);
    input!(cx, 6, f32 => o);
    input!(cx, 7, f32 => max);
    input!(cx, 8, f32 => inverse);
    let views = [(&q.0[..], q.1), (&k.0[..], k.1), (&v.0[..], v.1), (&mask.0[..], mask.1)];
    let of = attention_of(views, seed.1, attributes)?;
    let sizes = of.sizes;
    let n_rows = sizes.batch * sizes.heads * sizes.queries;
    let n = n_rows * sizes.value_width;
    require(dy.1.len() == n && o.1.len() == n, "do and o are not like the result")?;
    require(max.1.len() == n_rows && inverse.1.len() == n_rows, "not two numbers a query")?;
    let result = Result { dy: dy.1, o: o.1, max: max.1, inverse: inverse.1 };
    output!(cx, 0, q.0 => dq);
    output!(cx, 1, k.0 => dk);
    output!(cx, 2, v.0 => dv);
    let (Some(dq), Some(dk), Some(dv)) = (dq, dk, dv) else { return Ok(()) };
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    let ((tasks, n_parts), n_sums) = (tasks(&sizes), sizes.sums());
    // Where a head has several tasks, each sums for itself.
    let n_apart = if n_parts > 1 { tasks.len() * n_sums } else { 0 };
    let mut apart = zeros::<f32>(n_apart).map_err(|e| error(e.message()))?;
    let sums = Shared::new(&mut apart);
    let heads: Vec<Task> = tasks.iter().step_by(n_parts).cloned().collect();
    run(cx, tasks, n_sums + sizes.backward_room(), |i, task, room| {
        let (own, room) = room.split_at_mut(n_sums);
        own.fill(0.0);
        // SAFETY: as above; no two tasks have a number, or a head where it is one task.
        unsafe {
            of.backward(&task, &result, room, dq, own);
            match n_parts {
                1 => of.write_sums(&task, own, dk, dv),
                _ => sums.row(i * n_sums..(i + 1) * n_sums).copy_from_slice(own),
            }
        }
    })?;
    if n_parts == 1 {
        return Ok(());
    }
    let parts = apart.chunks_mut((n_parts * n_sums).max(1)).zip(heads).collect();
    each(cx, parts, |_, (sums, task): (&mut [f32], Task)| {
        let (first, others) = sums.split_at_mut(n_sums);
        others.chunks(n_sums).for_each(|other| super::math::add(first, other));
        // SAFETY: as above; each head is here once.
        unsafe { of.write_sums(&task, first, dk, dv) };
    })
}

//! The gradient of layer normalisation, all three parts in one pass.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, each, error, input, output, require};
use super::math;
use crate::memory::zeros;

/// Rows are walked in at most this many blocks; each sums its own share of dgamma and dbeta.
const BLOCKS: usize = 64;

/// y = x̂ · gamma + beta, x̂ = (x - mean) · inv over the last axis. Gives dx, dgamma, dbeta.
pub(super) fn layer_norm_grad(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => dy);
    input!(cx, 1, f32 => x);
    input!(cx, 2, f32 => gamma);
    input!(cx, 3, f32 => mean);
    input!(cx, 4, f32 => inv);
    let ((dy_dims, dy), (dims, x), (gamma_dims, gamma)) = (dy, x, gamma);
    let ((_, mean), (_, inv)) = (mean, inv);
    let width = gamma.len();
    require(dy_dims[..] == dims[..], "dy and x differ in shape")?;
    require(gamma_dims.len() == 1, "gamma has not one dimension")?;
    require(dims.last() == gamma_dims.first(), "gamma is not as long as the last axis")?;
    let rows = x.len().checked_div(width).unwrap_or(0);
    require(mean.len() == rows && inv.len() == rows, "not one mean and deviation per row")?;
    output!(cx, 0, dims => dx);
    output!(cx, 1, gamma_dims => dgamma);
    output!(cx, 2, gamma_dims => dbeta);
    let Some(dx) = dx else { return Ok(()) };
    let block = rows.div_ceil(BLOCKS).max(1);
    let mut sums =
        zeros::<f32>(2 * width * rows.div_ceil(block)).map_err(|e| error(e.message()))?;
    if !x.is_empty() {
        let of = block * width;
        let parts = dx.chunks_mut(of).zip(sums.chunks_mut(2 * width)).collect();
        each(cx, parts, |i, (dx, sums): (&mut [f32], &mut [f32])| {
            let (from, row) = (i * of, i * block);
            let (n, n_rows) = (dx.len(), dx.len() / width);
            let (dgamma, dbeta) = sums.split_at_mut(width);
            let (dy, x) = (&dy[from..from + n], &x[from..from + n]);
            let (mean, inv) = (&mean[row..row + n_rows], &inv[row..row + n_rows]);
            math::layer_norm_grad(dx, dgamma, dbeta, dy, x, gamma, mean, inv);
        })?;
    }
    for (half, out) in [dgamma, dbeta].into_iter().enumerate() {
        let Some(out) = out else { continue };
        out.fill(0.0);
        for sums in sums.chunks(2 * width.max(1)) {
            math::add(out, &sums[half * width..(half + 1) * width]);
        }
    }
    Ok(())
}

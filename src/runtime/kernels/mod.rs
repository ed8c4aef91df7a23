//! Fused CPU kernels in the operator domain `mmopt`, for what takes many passes over memory in
//! standard operators: gradients above all.
//!
//! | operator | inputs | outputs |
//! |---|---|---|
//! | `LayerNormGrad` | dy, x, gamma `[h]`, mean `[…, 1]`, inverse deviation | dx, dgamma, dbeta |
//! | `Gelu`, `GeluTanh` | x | y |
//! | `GeluGrad`, `GeluTanhGrad` | dy, x | dx |
//! | `SoftmaxGrad` | dy, y | dx |
//! | `CrossEntropy` | logits `[n, c]`, labels `[n]` i64 | rows `[n]`, lse `[n]` |
//! | `CrossEntropyGrad` | drows `[n]`, logits, labels, lse | dlogits `[n, c]` |
//! | `After` | x, another value | y, which is x |
//! | `Dropout` | x, seed `[1]` i64 | y |
//! | `Targets` | logits `[n, c]`, exchange `[2]` i64 | targets `[n, c]`, weights `[n]` |
//! | `MatMulBf16`, `MatMulF32` | a `[m, k]`, b `[k, n]` | y `[m, n]` |
//! | `GemmBf16`, `GemmF32` | a, b, c `[n]` | y |
//! | `FusedAttention` | q, k, v, mask, seed `[1]` i64 | o, max, inverse |
//! | `FusedAttentionGrad` | do, q, k, v, mask, seed, o, max, inverse | dq, dk, dv |
//! | `EmbeddingGrad` | ids `[…]` i64, rows `[…, h]`, table `[v, h]` | dtable `[v, h]` |
//!
//! A node names all inputs and all outputs. The two cross-entropies require the attributes
//! `ignore_index` (a label whose rows are ignored) and `label_smoothing` (0 to 1); `Dropout` has
//! `ratio` (0 to 1, 1 excluded) and `salt`, a number of its own for each node. Of the table only
//! the shape is read. y, dy and dx are like x.
//!
//! Of the attentions q is `[b, s, h, d]`, k `[b, t, h, d]`, v `[b, t, h, e]`, o `[b, s, h, e]`, and
//! max and inverse are `[b, h, s, 1]`. They require `scale`, a factor of q kᵀ, `ratio` and `salt`
//! as `Dropout` has them, over probabilities `[b, h, s, t]`, and `empty_is_zero`: 1 makes zeros of
//! a query whose probabilities are not numbers. The mask is added to the scores, broadcast, and
//! gets no gradient.
//!
//! All floats are f32; everything but the products works on the last axis. The products require
//! `transA`, `transB` and `alpha` of `Gemm`, and with c its `beta`; those in bf16 round both
//! factors and add up in f32. Each operator also has a form in standard operators, that of products
//! in f32 ([`attach`] puts it into the graph): where no kernel is registered, on another device or
//! by choice, the runtime runs that instead, from the same file. That of `Targets` gives zeros.
//!
//! Work is split by the shape alone and sums have a fixed order: the same bits at any number of
//! threads, and but for the products in the builds for each instruction set.

mod attention;
mod bf16;
mod dropout;
mod embedding;
mod exchange;
mod functions;
mod kernel;
mod loss;
mod math;
mod norm;
mod pointwise;
mod pool;
mod products;
mod single;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod tiles;

pub use bf16::is_fast as has_bf16_products;
pub use exchange::{EndGuard, Exchange, Message, ReadyAnswer, Request};
pub use functions::attach;
pub use single::is_fast as has_f32_products;

use ort::operator::OperatorDomain;

use super::api::wrap;
use crate::error::Result;
use crate::onnx::MMOPT_DOMAIN;

/// Names of the operators that have a kernel.
pub fn names() -> impl Iterator<Item = &'static str> {
    table::ROWS.iter().map(|row| row.name)
}

/// The kernels in the runtime's form. Sessions refer to it, so it lives as long as the library.
pub(super) struct Kernels(OperatorDomain);

// SAFETY: the domain is never changed after it is made; sessions only read it.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Describes the kernels to the runtime.
    pub(super) fn new() -> Result<Self> {
        let domain = table::ROWS
            .iter()
            .try_fold(OperatorDomain::new(MMOPT_DOMAIN).map_err(wrap)?, |d, row| {
                d.add(table::Op(row))
            })
            .map_err(wrap)?;
        Ok(Self(domain))
    }

    /// The domain, for session options.
    pub(super) fn domain(&self) -> *mut ort::sys::OrtCustomOpDomain {
        ort::AsPointer::ptr(&self.0).cast_mut()
    }
}

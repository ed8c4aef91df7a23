//! Multi-head attention (Vaswani et al. 2017) and the additive masks that go before it.

use super::net::Net;
use crate::onnx::{Attribute, ValueId};
use crate::tensor::DType;

/// What every block of one model shares.
pub(super) struct Attention {
    /// Added to the scores: 0 where a key is seen, the lowest f32 where not.
    mask: ValueId,
    /// `[batch, sequence, heads, width of a head]`.
    split: ValueId,
}

impl Attention {
    /// Attention to every token that the mask keeps: [batch, 1, 1, sequence].
    pub fn bidirectional(net: &mut Net) -> Self {
        net.enter("mask");
        let mask = cast(net, net.mask, DType::F32);
        let axes = net.ints(&[1, 2]);
        let mask = net.op("Unsqueeze", &[mask, axes], []);
        Self::with(net, mask)
    }

    /// Attention to kept tokens at the same or an earlier place: [batch, 1, sequence, sequence].
    pub fn causal(net: &mut Net) -> Self {
        net.enter("mask");
        let places = places(net);
        let axis = net.ints(&[1]);
        let queries = net.op("Unsqueeze", &[places, axis], []);
        let causal = net.op("GreaterOrEqual", &[queries, places], []);
        let kept = cast(net, net.mask, DType::Bool);
        let axes = net.ints(&[1, 2]);
        let kept = net.op("Unsqueeze", &[kept, axes], []);
        let seen = net.op("And", &[kept, causal], []);
        let seen = cast(net, seen, DType::F32);
        Self::with(net, seen)
    }

    /// From 1 where a key is seen and 0 where not.
    fn with(net: &mut Net, seen: ValueId) -> Self {
        let (one, lowest) = (net.float(1.0), net.float(f64::from(f32::MAX)));
        let mask = net.op("Sub", &[seen, one], []);
        let mask = net.op("Mul", &[mask, lowest], []);
        let (n, width) = (net.config.heads, net.config.hidden / net.config.heads);
        let heads = net.ints(&[n as i64, width as i64]);
        let split = net.op("Concat", &[net.dims, heads], [("axis", Attribute::Int(0))]);
        Self { mask, split }
    }

    /// `softmax(q kᵀ + mask) v` per head, dropout on the probabilities. `q` is scaled already;
    /// all are [batch · sequence, hidden].
    pub fn apply(&self, net: &mut Net, q: ValueId, k: ValueId, v: ValueId) -> ValueId {
        let q = self.heads(net, q, &[0, 2, 1, 3]);
        let k = self.heads(net, k, &[0, 2, 3, 1]);
        let v = self.heads(net, v, &[0, 2, 1, 3]);
        let scores = net.op("MatMul", &[q, k], []);
        let scores = net.op("Add", &[scores, self.mask], []);
        let seen = net.op("Softmax", &[scores], [("axis", Attribute::Int(-1))]);
        let seen = net.dropout(seen, net.config.attention_dropout);
        let mixed = net.op("MatMul", &[seen, v], []);
        let mixed = net.op("Transpose", &[mixed], [("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
        net.flatten(mixed, net.config.hidden)
    }

    fn heads(&self, net: &mut Net, x: ValueId, order: &[i64]) -> ValueId {
        let x = net.op("Reshape", &[x, self.split], []);
        net.op("Transpose", &[x], [("perm", Attribute::Ints(order.to_vec()))])
    }
}

/// 0, 1, …, sequence - 1 as int64.
pub(super) fn places(net: &mut Net) -> ValueId {
    let (zero, one) = (net.int(0), net.int(1));
    let n = net.op("Gather", &[net.dims, one], [("axis", Attribute::Int(0))]);
    net.op("Range", &[zero, n, one], [])
}

/// A node that changes the element type.
pub(super) fn cast(net: &mut Net, x: ValueId, to: DType) -> ValueId {
    net.op("Cast", &[x], [("to", Attribute::Int(i64::from(to.onnx())))])
}

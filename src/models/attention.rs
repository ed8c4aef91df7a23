//! Multi-head attention (Vaswani et al. 2017) and the additive masks that go before it.

use super::builder::ModelBuilder;
use crate::error::Result;
use crate::onnx::{Attribute, ValueId};
use crate::tensor::DType;

/// What every block of one model shares.
pub(super) struct Attention {
    /// Added to the scores: 0 where a key is visible, the lowest f32 where not.
    mask: ValueId,
    /// `[batch, sequence, heads, width of a head]`.
    split: ValueId,
}

impl Attention {
    /// Attention to every token that the mask keeps: [batch, 1, 1, sequence].
    pub fn bidirectional(net: &mut ModelBuilder) -> Self {
        net.enter("mask");
        let mask = cast(net, net.mask, DType::F32);
        let axes = net.ints(&[1, 2]);
        let mask = net.op("Unsqueeze", &[mask, axes], []);
        Self::with(net, mask)
    }

    /// Attention to kept tokens at the same or an earlier place: [batch, 1, sequence, sequence].
    pub fn causal(net: &mut ModelBuilder) -> Self {
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
    fn with(net: &mut ModelBuilder, seen: ValueId) -> Self {
        let (one, lowest) = (net.float(1.0), net.float(f64::from(f32::MAX)));
        let mask = net.op("Sub", &[seen, one], []);
        let mask = net.op("Mul", &[mask, lowest], []);
        let (n, width) = (net.config.heads, net.config.hidden / net.config.heads);
        let heads = net.ints(&[n as i64, width as i64]);
        let split = net.op("Concat", &[net.dims, heads], [("axis", Attribute::Int(0))]);
        Self { mask, split }
    }

    /// Adds a learned value per head and bucket of distance to the scores, the same in every
    /// block (Raffel et al. 2019, section 2.1, bidirectional). The table is [buckets, heads].
    pub fn add_distance_bias(&mut self, net: &mut ModelBuilder, name: &str) -> Result<()> {
        let (n, n_buckets) = (net.config.heads, net.config.distance_buckets());
        let table = net.parameter(name, &[n_buckets, n], net.normal())?;
        net.enter("distance");
        let reach = net.config.max_sequence() as i64;
        let buckets: Vec<i64> = (-reach..=reach).map(|d| distance_bucket(d, n_buckets)).collect();
        let buckets = net.ints(&buckets);
        let place = places(net);
        let axis = net.ints(&[1]);
        let query = net.op("Unsqueeze", &[place, axis], []);
        let distance = net.op("Sub", &[place, query], []);
        let reach = net.int(reach);
        let distance = net.op("Add", &[distance, reach], []);
        let bucket = net.op("Gather", &[buckets, distance], [("axis", Attribute::Int(0))]);
        // A one-hot product in place of a lookup: its gradient is a product too.
        let column = net.flatten(bucket, 1);
        let all = net.ints(&(0..n_buckets as i64).collect::<Vec<_>>());
        let one_hot = net.op("Equal", &[column, all], []);
        let one_hot = cast(net, one_hot, DType::F32);
        let transposed = [("transA", Attribute::Int(1)), ("transB", Attribute::Int(1))];
        let bias = net.op("Gemm", &[table, one_hot], transposed);
        let length = net.op("Shape", &[bucket], []);
        let heads = net.ints(&[1, n as i64]);
        let shape = net.op("Concat", &[heads, length], [("axis", Attribute::Int(0))]);
        let bias = net.op("Reshape", &[bias, shape], []);
        self.mask = net.op("Add", &[self.mask, bias], []);
        Ok(())
    }

    /// `softmax(q kᵀ + mask) v` per head, dropout on the probabilities. `q` is scaled already;
    /// all are [batch · sequence, hidden].
    pub fn apply(&self, net: &mut ModelBuilder, q: ValueId, k: ValueId, v: ValueId) -> ValueId {
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

    fn heads(&self, net: &mut ModelBuilder, x: ValueId, order: &[i64]) -> ValueId {
        let x = net.op("Reshape", &[x, self.split], []);
        net.op("Transpose", &[x], [("perm", Attribute::Ints(order.to_vec()))])
    }
}

/// The bucket of key place minus query place: half of the buckets for each direction; of those
/// half for single distances, the rest logarithmic up to 128.
fn distance_bucket(distance: i64, n_buckets: usize) -> i64 {
    let half = (n_buckets / 2) as i64;
    let side = if distance > 0 { half } else { 0 };
    let n = distance.abs();
    let exact = half / 2;
    if n < exact {
        return side + n;
    }
    let share = (n as f32 / exact as f32).ln() / (128.0 / exact as f64).ln() as f32;
    let large = exact + (share * (half - exact) as f32) as i64;
    side + large.min(half - 1)
}

/// 0, 1, …, sequence - 1 as int64.
pub(super) fn places(net: &mut ModelBuilder) -> ValueId {
    let (zero, one) = (net.int(0), net.int(1));
    let n = net.op("Gather", &[net.dims, one], [("axis", Attribute::Int(0))]);
    net.op("Range", &[zero, n, one], [])
}

/// A node that changes the element type.
pub(super) fn cast(net: &mut ModelBuilder, x: ValueId, to: DType) -> ValueId {
    net.op("Cast", &[x], [("to", Attribute::Int(i64::from(to.onnx())))])
}

#[cfg(test)]
mod tests {
    use super::distance_bucket;

    /// The expected numbers are the published implementation's.
    #[test]
    fn distances_fall_into_the_published_buckets() {
        let distances = [-400, -128, -91, -90, -64, -12, -11, -8, -7, -1, 0, 1, 7, 8, 15, 16, 400];
        let buckets = [15, 15, 15, 14, 14, 9, 8, 8, 7, 1, 0, 17, 23, 24, 25, 26, 31];
        assert_eq!(distances.map(|d| distance_bucket(d, 32)), buckets);
        let edges: Vec<_> =
            (1..600).filter(|&d| distance_bucket(-d, 32) > distance_bucket(1 - d, 32)).collect();
        assert_eq!(edges, [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]);
    }
}

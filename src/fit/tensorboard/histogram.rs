//! Histograms in TensorFlow's buckets: limits grow by 10 per cent from 1e-12, on both sides of 0.

use std::sync::LazyLock;

use super::proto::HistogramProto;

/// The upper limits of the buckets, in order; the last one holds everything.
static LIMITS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let positive: Vec<f64> =
        std::iter::successors(Some(1e-12), |v| Some(v * 1.1)).take_while(|v| *v < 1e20).collect();
    let mut limits: Vec<f64> = vec![-f64::MAX];
    limits.extend(positive.iter().rev().map(|v| -v));
    limits.push(0.0);
    limits.extend(&positive);
    limits.push(f64::MAX);
    limits
});

/// Counts of numbers by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    min: f64,
    max: f64,
    num: f64,
    sum: f64,
    sum_squares: f64,
    counts: Vec<f64>,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = vec![0.0; LIMITS.len()];
        Self { min: f64::MAX, max: -f64::MAX, num: 0.0, sum: 0.0, sum_squares: 0.0, counts }
    }
}

impl Histogram {
    /// Of all finite numbers.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut histogram = Self::default();
        values.into_iter().for_each(|v| histogram.add(v));
        histogram
    }

    /// Adds a number; one that is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.num += 1.0;
        self.sum += value;
        self.sum_squares += value * value;
        let bucket = LIMITS.partition_point(|limit| *limit <= value);
        self.counts[bucket.min(LIMITS.len() - 1)] += 1.0;
    }

    /// As a message, without the empty buckets at both ends.
    pub fn to_proto(&self) -> HistogramProto {
        let first = self.counts.iter().position(|n| *n > 0.0);
        let last = self.counts.iter().rposition(|n| *n > 0.0);
        let range = match (first, last) {
            // TensorBoard reads a bucket's lower limit from the one before.
            (Some(first), Some(last)) => first.saturating_sub(1)..last + 1,
            _ => return HistogramProto::default(),
        };
        HistogramProto {
            min: self.min,
            max: self.max,
            num: self.num,
            sum: self.sum,
            sum_squares: self.sum_squares,
            bucket_limit: LIMITS[range.clone()].to_vec(),
            bucket: self.counts[range].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_between_the_limits() {
        let values = [-2.0, -1e-15, 0.0, 1e-12, 0.5, 0.5, 1e30];
        let proto = Histogram::of(values.into_iter().chain([f64::NAN])).to_proto();
        assert_eq!((proto.num, proto.min, proto.max), (7.0, -2.0, 1e30));
        assert_eq!(proto.bucket.iter().sum::<f64>(), 7.0);
        for value in values {
            let i = proto.bucket_limit.partition_point(|limit| *limit <= value);
            assert!(proto.bucket[i] > 0.0, "{value}");
            assert!(i == 0 || proto.bucket_limit[i - 1] <= value);
        }
        assert_eq!(Histogram::default().to_proto(), HistogramProto::default());
    }
}

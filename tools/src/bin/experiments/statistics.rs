//! Means with intervals, paired differences, and when a score was first reached.

use serde_json::Value;

use crate::data::hash;

/// A mean and half of its 95% interval by Student's t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub mean: f64,
    /// NaN for fewer than two values.
    pub half: f64,
    pub n: usize,
}

/// Two-sided 95% points of Student's t for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

impl Mean {
    pub fn of(values: &[f64]) -> Self {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let t = if n < 2 { f64::NAN } else { T.get(n - 2).copied().unwrap_or(1.96) };
        Self { mean, half: t * (squares / (n as f64 - 1.0) / n as f64).sqrt(), n }
    }
}

/// The 95% interval of a statistic of `n` examples, by its values on `ROUNDS` draws of `n` of them
/// with replacement (Efron 1979): the 2.5 and 97.5 percentiles.
pub fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> f64) -> (f64, f64) {
    const ROUNDS: usize = 1000;
    let mut state = 0u64;
    let mut values: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let draw = |_| {
                state = state.wrapping_add(1);
                (hash("", state) % n.max(1) as u64) as usize
            };
            statistic(&(0..n).map(draw).collect::<Vec<_>>())
        })
        .collect();
    values.sort_by(f64::total_cmp);
    (values[ROUNDS / 40], values[ROUNDS - 1 - ROUNDS / 40])
}

/// Scores of one model in one run.
pub struct Curve {
    /// Step, processor seconds of training (of the clock in old runs), validation score.
    pub held_in: Vec<(u64, f64, f64)>,
    /// Whether the seconds are the processor's.
    pub has_processor_seconds: bool,
    /// At the end of each epoch: validation score and evaluation score, where that was asked for.
    pub epochs: Vec<(f64, Option<f64>)>,
}

impl Curve {
    pub fn of(run: &Value, model: &str) -> Option<Self> {
        let (held_in, epochs) = (Vec::new(), Vec::new());
        let mut curve = Self { held_in, has_processor_seconds: true, epochs };
        for record in run["records"].as_array()? {
            let score = record[model]["score"].as_f64()?;
            let processor = record["processor_seconds"].as_f64();
            curve.has_processor_seconds &= processor.is_some();
            let seconds = processor.or(record["seconds"].as_f64())?;
            let step = record["step"].as_u64()?;
            curve.held_in.push((step, seconds, score));
            if record["epoch"].as_u64()? > 0 {
                curve.epochs.push((score, record[model]["test_score"].as_f64()));
            }
        }
        (!curve.epochs.is_empty()).then_some(curve)
    }

    /// Scores of the last epoch: validation, evaluation.
    pub fn last(&self) -> (f64, Option<f64>) {
        self.epochs[self.epochs.len() - 1]
    }

    /// Scores of the epoch with the best validation score, the first of equals.
    pub fn best(&self) -> (f64, Option<f64>) {
        let better = |a: (f64, Option<f64>), &b: &(f64, Option<f64>)| if b.0 > a.0 { b } else { a };
        self.epochs.iter().fold(self.epochs[0], better)
    }

    /// Step and seconds at which a validation score was first reached.
    pub fn reached(&self, target: f64) -> Option<(u64, f64)> {
        let first = self.held_in.iter().find(|(_, _, score)| *score >= target);
        first.map(|&(step, seconds, _)| (step, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn intervals_by_students_t() {
        // R: t.test(c(1, 2, 4)) gives 2.333333 and (-1.461, 6.128).
        let mean = Mean::of(&[1.0, 2.0, 4.0]);
        assert!((mean.mean - 7.0 / 3.0).abs() < 1e-12 && (mean.half - 3.7943).abs() < 1e-3);
        assert!(Mean::of(&[1.0]).half.is_nan());
    }

    #[test]
    fn bootstrap_of_a_mean() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let mean = |chosen: &[usize]| chosen.iter().map(|&i| values[i]).sum::<f64>() / 400.0;
        // The standard error of the mean is 0.025.
        let (low, high) = bootstrap(400, mean);
        assert!((low - 0.451).abs() < 0.008 && (high - 0.549).abs() < 0.008, "{low} {high}");
    }

    #[test]
    fn last_best_and_reached() {
        let run = json!({"records": [
            {"epoch": 0, "step": 5, "seconds": 1.0, "m": {"score": 0.4}},
            {"epoch": 1, "step": 10, "seconds": 2.0, "m": {"score": 0.7, "test_score": 0.6}},
            {"epoch": 2, "step": 20, "seconds": 9.0, "processor_seconds": 4.0, "m": {"score": 0.6, "test_score": 0.9}},
        ]});
        let curve = Curve::of(&run, "m").unwrap();
        assert_eq!(curve.last(), (0.6, Some(0.9)));
        assert_eq!(curve.best(), (0.7, Some(0.6)));
        assert_eq!(curve.reached(0.5), Some((10, 2.0)));
        assert_eq!(curve.reached(0.8), None);
        assert_eq!(curve.held_in[2].1, 4.0);
        assert!(Curve::of(&run, "other").is_none());
    }
}

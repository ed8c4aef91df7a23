//! Dynamic model weights: how a validation score moves a weight.

/// A weight's factor after a validation: half of the way, in logarithms, from the present factor
/// to exp((score − mean) / temperature), within 1/limit and limit.
pub(in crate::optim) fn moved_weight(
    factor: f64,
    score: f64,
    mean: f64,
    temperature: f64,
    limit: f64,
) -> f64 {
    let target = ((score - mean) / temperature).exp().clamp(1.0 / limit, limit);
    (factor * target).sqrt()
}

#[cfg(test)]
mod tests {
    use crate::optim::options::Weighting;
    use crate::optim::{ModelSpec, Optimizer, Options};

    #[test]
    fn better_models_come_to_weigh_more_within_the_limit() {
        let options =
            Options { weighting: Weighting::Validation, n_threads: 1, ..Options::default() };
        let models = ["b", "a"].map(|n| ModelSpec::new(n, Vec::new()));
        let mut o = Optimizer::new(options, models.into()).unwrap();
        o.report_validation(&[0.9, 0.8]).unwrap();
        let expected = (0.5f64 / 2.0).exp(); // half of (0.9 − 0.85) / 0.1
        let share = |o: &Optimizer| o.normalised_weight(0).unwrap();
        assert!((share(&o) - expected / (expected + 1.0 / expected)).abs() < 1e-12);
        for _ in 0..60 {
            o.report_validation(&[1.0, 0.0]).unwrap();
        }
        assert!((share(&o) - 0.8).abs() < 1e-9); // 2 against 1/2
        assert!(o.report_validation(&[1.0]).is_err());
        assert!(o.report_validation(&[1.0, f64::NAN]).is_err());
    }
}

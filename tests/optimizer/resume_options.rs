//! A state restored under other options: what differs is told, and the rate that was given counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{ModelSpec, Optimizer, Options, ParamSpec, SavedTensor};
use mmopt::tensor::DType;

fn start(options: Options) -> Optimizer {
    let spec = ModelSpec::new("m", vec![ParamSpec::new("w", &[2])]);
    let mut o = Optimizer::new(options, vec![spec]).unwrap();
    o.bind_owned(0, DType::F32).unwrap();
    o
}

#[test]
fn changed_options_are_told_and_the_given_rate_counts() {
    let old = Options { n_threads: 1, learning_rate: 1e-3, ..Options::adamw() };
    let mut first = start(old.clone());
    first.set_learning_rate(5e-4).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&first.state_json().unwrap().to_string()).unwrap();
    let none = |_: &str| -> Option<SavedTensor<'static>> { None };
    let resume = |options: Options| {
        let mut o = start(options);
        o.load_state(&json, &none).unwrap();
        (o.rates(0).unwrap().base, o.changed_options().to_vec())
    };
    // The same options: the rate that was set since goes on.
    assert_eq!(resume(Options { n_threads: 2, ..old.clone() }), (5e-4, Vec::new()));
    let new = Options { learning_rate: 0.25, weight_decay: 0.5, ..old };
    let (rate, changes) = resume(new);
    assert_eq!(rate, 0.25);
    let expected = ["learning_rate was 0.001 and is 0.25", "weight_decay was 0.01 and is 0.5"];
    assert_eq!(changes, expected);
}

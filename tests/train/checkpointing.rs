//! The options `activation_checkpointing` and `max_parallel_models`: the same losses and gradients, also with dropout and while
//! models learn from each other, the same bits with any number of threads, and where it is refused.

use mmopt::Kind;
use mmopt::models::Sizes;
use mmopt::optim::{Mutual, Options};
use mmopt::runtime::Device;
use mmopt::train::{ModelOptions, Trainer, TrainerOptions};

use crate::trainer::{gradients, learn_the_same, model_of, pass_all, sizes};

const NAMES: [&str; 3] = ["bert", "gpt2", "roberta"];

fn model(name: &str) -> ModelOptions {
    model_of(name, &Sizes { layers: 3, ..sizes(0.2) })
}

fn trainer(activation_checkpointing: bool, n_threads: usize, mutual: Option<Mutual>) -> Trainer {
    let optimizer = Options {
        activation_checkpointing,
        n_threads,
        mutual,
        learning_rate: 3e-3,
        ..Options::default()
    };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, NAMES.map(model).into()).unwrap()
}

/// Dropout's masks are those of the first computation; what is left is rounding.
#[test]
fn gradients_are_those_of_kept_activations() {
    for mutual in [None, Some(Mutual::default())] {
        let [mut few, mut all] = [true, false].map(|on| trainer(on, 2, mutual.clone()));
        for seed in 0..2 {
            let losses = [&mut few, &mut all].map(|t| pass_all(t, seed));
            for i in 0..NAMES.len() {
                let (own, expected) = (losses[0][i], losses[1][i]);
                assert!((own - expected).abs() < 1e-6, "{}: {own}, not {expected}", NAMES[i]);
                let (own, expected) = (gradients(&few, i), gradients(&all, i));
                assert_eq!(own.len(), expected.len());
                for ((name, a), (_, b)) in own.iter().zip(&expected) {
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>();
                    let whole = norm(&mut b.iter().copied()).sqrt();
                    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)).sqrt();
                    assert!(apart <= 1e-5 * whole + 1e-8, "{name}: {apart} of {whole}");
                }
            }
            let _ = [&mut few, &mut all].map(|t| t.step().unwrap());
        }
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let [mut one, mut many] = [1, 5].map(|n| trainer(true, n, None));
    learn_the_same(&mut one, &mut many);
}

/// Models in turn, with all threads each, learn what models side by side learn, and their teachers
/// predict the same.
#[test]
fn models_in_turn_have_the_same_bits() {
    for mutual in [None, Some(Mutual::default())] {
        let [mut turn, mut side] = [1, 0].map(|max_parallel_models| {
            let optimizer = Options {
                max_parallel_models,
                n_threads: 3,
                mutual: mutual.clone(),
                learning_rate: 3e-3,
                ..Options::default()
            };
            let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
            Trainer::new(options, NAMES.map(model).into()).unwrap()
        });
        learn_the_same(&mut turn, &mut side);
    }
}

#[test]
fn a_gpu_is_refused() {
    let mut options = TrainerOptions { device: Device::Cuda { id: 0 }, ..Default::default() };
    options.optimizer.activation_checkpointing = true;
    let error = Trainer::new(options, vec![model("bert")]).unwrap_err();
    let text = error.message();
    assert!(error.kind() == Kind::Unsupported && text.contains("accumulation_steps"), "{error}");
}

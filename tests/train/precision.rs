//! The option `precision`: gradients of products in bf16 beside those in f32, the same bits with any
//! number of threads, and where it is refused.

use std::sync::{Arc, Mutex};

use mmopt::Kind;
use mmopt::models::Sizes;
use mmopt::optim::Precision;
use mmopt::runtime::Device;
use mmopt::runtime::kernels::has_bf16_products;
use mmopt::train::{Level, ModelOptions, Trainer, TrainerOptions};

use crate::trainer::{Example, gradients, learn_the_same, model_of, pass_all, sizes};

const NAMES: [&str; 3] = ["bert", "gpt2", "roberta"];

/// Wide enough that products are large.
fn model(name: &str) -> ModelOptions {
    model_of(name, &Sizes { hidden: 64, intermediate: 128, ..sizes(0.1) })
}

fn trainer(precision: Precision, n_threads: usize) -> Trainer {
    let mut options = TrainerOptions::default();
    options.optimizer.precision = precision;
    options.optimizer.n_threads = n_threads;
    options.optimizer.learning_rate = 3e-3;
    Trainer::new(options, NAMES.map(model).into()).unwrap()
}

/// Each gradient is close to that in f32, and most are not equal to it.
#[test]
fn gradients_are_those_of_f32_up_to_rounding() {
    let [mut narrow, mut wide] = [Precision::Bf16, Precision::F32].map(|p| trainer(p, 2));
    let losses = [&mut narrow, &mut wide].map(|t| pass_all(t, 3));
    for i in 0..NAMES.len() {
        let (own, exact) = (losses[0][i], losses[1][i]);
        assert!((own - exact).abs() < 0.01, "{own} against {exact}");
        let (narrow, wide) = (gradients(&narrow, i), gradients(&wide, i));
        assert_eq!(narrow.len(), wide.len());
        let mut n_other = 0;
        for ((name, a), (_, b)) in narrow.iter().zip(&wide) {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
            let whole = norm(&mut b.iter().copied());
            let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
            // Rounding alone is in gradients that are zero in exact arithmetic.
            assert!(apart <= 0.03 * whole + 1e-5, "{}: {name}: {apart} of {whole}", NAMES[i]);
            n_other += usize::from(a != b);
        }
        assert_eq!(n_other > wide.len() / 2, has_bf16_products(), "{n_other} of {}", wide.len());
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let [mut one, mut many] = [1, 5].map(|n| trainer(Precision::Bf16, n));
    learn_the_same(&mut one, &mut many);
}

/// Evaluation rounds as training does.
#[test]
fn evaluation_has_the_same_precision() {
    let [mut narrow, mut wide] = [Precision::Bf16, Precision::F32].map(|p| trainer(p, 2));
    for (i, name) in NAMES.iter().enumerate() {
        let example = Example::new(5, *name == "bert");
        let loss = |t: &mut Trainer| t.evaluate(i, &example.views()).unwrap().loss.unwrap();
        let (own, exact) = (loss(&mut narrow), loss(&mut wide));
        assert!((own - exact).abs() < 0.01, "{own} against {exact}");
        assert_eq!(own != exact, has_bf16_products(), "{own} against {exact}");
    }
}

#[test]
fn the_log_says_what_is_computed_in_and_a_gpu_is_refused() {
    let mut trainer = trainer(Precision::Bf16, 1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = heard.clone();
    let sink = move |level: Level, text: &str| into.lock().unwrap().push((level, text.to_owned()));
    trainer.set_log(Some((Level::Info, Box::new(sink))));
    let heard = heard.lock().unwrap();
    let told: Vec<_> = heard.iter().filter(|(_, text)| text.contains("bf16")).collect();
    let level = if has_bf16_products() { Level::Info } else { Level::Warning };
    assert!(matches!(told[..], [(l, _)] if *l == level), "{told:?}");
    let mut options = TrainerOptions { device: Device::Cuda { id: 0 }, ..Default::default() };
    options.optimizer.precision = Precision::Bf16;
    let error = Trainer::new(options, vec![model("bert")]).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("tf32"), "{error}");
}

//! The option `attention`: fused attention has the losses and gradients of the models' own graphs,
//! with the same dropout, also with activation checkpointing, and the same bits with any number of
//! threads.

use mmopt::Kind;
use mmopt::models::Sizes;
use mmopt::optim::{AttentionForm, Options};
use mmopt::runtime::Device;
use mmopt::tensor::Tensor;
use mmopt::train::{TensorView, Trainer, TrainerOptions};

use crate::trainer::{gradients, model_of, sizes, weights};

const NAMES: [&str; 3] = ["bert", "gpt2", "roberta"];
const BATCH: usize = 2;
/// No multiple of a block of queries, of a strip of keys, or of a vector.
const LENGTHS: [usize; 3] = [101, 48, 7];

fn trainer(form: AttentionForm, activation_checkpointing: bool, n_threads: usize) -> Trainer {
    let optimizer = Options {
        attention: form,
        activation_checkpointing,
        n_threads,
        learning_rate: 3e-3,
        ..Options::default()
    };
    let sizes = Sizes { layers: 3, positions: 110, heads: 4, ..sizes(0.2) };
    let models = NAMES.map(|name| model_of(name, &sizes)).into();
    Trainer::new(TrainerOptions { optimizer, ..TrainerOptions::default() }, models).unwrap()
}

/// Random tokens, of which the second sample has a third as many, and labels.
fn batch(seed: u64, length: usize, types: bool) -> Vec<(&'static str, Tensor)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % n) as i64
    };
    let n = BATCH * length;
    let mask: Vec<i64> = (0..n).map(|i| i64::from(i < length + length.div_ceil(3))).collect();
    // Padding is the token that the models take for it; real tokens are others.
    let ids: Vec<i64> = mask.iter().map(|real| if *real == 1 { 7 + next(13) } else { 0 }).collect();
    let of = |shape: &[usize], x: &[i64]| Tensor::from_slice(shape, x).unwrap();
    let mut tensors = vec![
        ("input_ids", of(&[BATCH, length], &ids)),
        ("attention_mask", of(&[BATCH, length], &mask)),
        ("labels", of(&[BATCH], &[0, 1])),
    ];
    if types {
        tensors.push(("token_type_ids", of(&[BATCH, length], &vec![0; n])));
    }
    tensors
}

/// One pass of all models and its losses.
fn pass(trainer: &mut Trainer, seed: u64, length: usize) -> Vec<f64> {
    let tensors = NAMES.map(|name| batch(seed, length, name == "bert"));
    let views = tensors
        .each_ref()
        .map(|tensors| tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect::<Vec<_>>());
    let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
    trainer.forward_backward_all(&batches).unwrap().iter().map(|o| o.loss).collect()
}

fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Largest difference of a gradient, relative to its norm; of one that is zero in truth, to 1e-3.
fn apart(one: &Trainer, other: &Trainer, model: usize) -> f64 {
    let (own, expected) = (gradients(one, model), gradients(other, model));
    assert_eq!(own.len(), expected.len());
    let mut worst = 0f64;
    for ((_, a), (_, b)) in own.iter().zip(&expected) {
        let difference = norm(a.iter().zip(b).map(|(a, b)| a - b));
        worst = worst.max(difference / norm(b.iter().copied()).max(1e-3));
    }
    worst
}

/// With equal weights each time: an optimizer would make more of the rounding.
#[test]
fn gradients_are_those_of_the_unfused_graph() {
    for (seed, length) in LENGTHS.into_iter().enumerate() {
        for checkpointing in [false, true] {
            let forms = [AttentionForm::Fused, AttentionForm::Unfused];
            let [mut fused, mut plain] = forms.map(|form| trainer(form, checkpointing, 2));
            let losses = [&mut fused, &mut plain].map(|t| pass(t, seed as u64, length));
            for (i, name) in NAMES.into_iter().enumerate() {
                let (own, expected) = (losses[0][i], losses[1][i]);
                assert!((own - expected).abs() < 1e-6, "{name} {length}: {own}, not {expected}");
                let error = apart(&fused, &plain, i);
                println!("{name}, length {length}, checkpointing {checkpointing}: {error:.1e}");
                assert!(error <= 1e-5, "{name}, length {length}: {error}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let [mut one, mut many] = [1, 5].map(|n| trainer(AttentionForm::Fused, false, n));
    for seed in 0..2 {
        assert_eq!(pass(&mut one, seed, 101), pass(&mut many, seed, 101));
        let _ = [&mut one, &mut many].map(|t| t.step().unwrap());
    }
    assert!(weights(&one) == weights(&many), "other weights");
}

/// Without the matrix of scores memory grows with the length, not with its square.
#[test]
fn memory_is_less_for_long_batches() {
    let activations = |form: AttentionForm, length: usize| {
        let trainer = trainer(form, false, 1);
        let tensors = NAMES.map(|name| batch(1, length, name == "bert"));
        let views = tensors.each_ref().map(|tensors| {
            tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect::<Vec<_>>()
        });
        let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
        let report = trainer.memory_report(&batches).unwrap();
        report.models.iter().map(|m| m.activations as f64).collect::<Vec<_>>()
    };
    let growth = |form| {
        let [long, short] = [100, 50].map(|length| activations(form, length));
        long.iter().zip(&short).map(|(long, short)| long / short).collect::<Vec<_>>()
    };
    let (fused, plain) = (growth(AttentionForm::Fused), growth(AttentionForm::Unfused));
    // GPT-2's causal mask is a square, of which there is one.
    assert!(fused.iter().all(|x| *x < 2.2), "twice the length: {fused:?} times the memory");
    assert!(plain.iter().all(|x| *x > 2.5), "twice the length: {plain:?} times the memory");
}

#[test]
fn a_gpu_is_refused() {
    let mut options = TrainerOptions { device: Device::Cuda { id: 0 }, ..Default::default() };
    options.optimizer.attention = AttentionForm::Fused;
    let error = Trainer::new(options, vec![model_of("bert", &sizes(0.0))]).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("auto"), "{error}");
}

//! Small models with made-up values and gradients, for the optimizer's tests.

#![allow(dead_code)]

use mmopt::optim::{ModelSpec, Moment, Optimizer, Options};
use mmopt::tensor::DType;
use mmopt_tools::base_models::{self, Size};

/// Three small models whose groups have transposed and sliced views, and tokens in orders of their
/// own.
pub fn models() -> Vec<ModelSpec> {
    let size = Size { hidden: 72, layers: 2, inner: 200 };
    let (bert, gpt2) = (base_models::bert(size, 90), base_models::gpt2(size, 101));
    let mut models = vec![bert, gpt2, base_models::roberta(size, 95)];
    for (spec, (rows, stride)) in models.iter_mut().zip([(90, 1), (101, 7), (95, 3)]) {
        spec.tokens = Some((0..rows).map(|row| format!("{}", row * stride % rows)).collect());
    }
    models
}

/// A seed that depends on the names alone.
fn seed(model: &str, param: &str) -> u64 {
    let bytes = model.bytes().chain([0]).chain(param.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn mixed(seed: u64, element: usize, step: u64) -> f32 {
    let mut h = seed ^ (element as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 31) ^ step.wrapping_mul(0xd6e8_feb8_6659_fd93))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((h >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

/// A number in [−1, 1] that depends on the names and indices alone.
pub fn number(model: &str, param: &str, element: usize, step: u64) -> f32 {
    mixed(seed(model, param), element, step)
}

/// An optimizer over owned memory with starting values.
pub fn optimizer(options: Options, models: &[ModelSpec]) -> Optimizer {
    let mut o = Optimizer::new(options, models.to_vec()).expect("optimizer");
    for (m, spec) in models.iter().enumerate() {
        o.bind_owned(m, DType::F32).expect("memory");
        for (p, param) in spec.params.iter().enumerate() {
            let values = o.values_mut(m, p).expect("values");
            let seed = seed(&spec.name, &param.name);
            for (i, x) in values.iter_mut().enumerate() {
                *x = 0.1 * mixed(seed, i, 0);
            }
        }
    }
    o
}

/// Fills all gradients for a step.
pub fn give_gradients(o: &mut Optimizer, models: &[ModelSpec], step: u64) {
    for (m, spec) in models.iter().enumerate() {
        for (p, param) in spec.params.iter().enumerate() {
            let gradient = o.gradient_mut(m, p).expect("gradient").as_mut_slice().expect("f32");
            let seed = seed(&spec.name, &param.name);
            for (i, g) in gradient.iter_mut().enumerate() {
                *g = 0.01 * mixed(seed, i, step);
            }
        }
    }
}

/// Bits of all values and moments of one model.
pub fn bits(o: &Optimizer, model: usize, spec: &ModelSpec) -> Vec<u32> {
    let mut out = Vec::new();
    for p in 0..spec.params.len() {
        let mut take = |x: &[f32]| out.extend(x.iter().map(|x| x.to_bits()));
        take(o.values(model, p).expect("values"));
        for which in [Moment::First, Moment::Second, Moment::Maximum] {
            take(o.moment(model, p, which).expect("moment").unwrap_or(&[]));
        }
    }
    out
}

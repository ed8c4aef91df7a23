//! The host's memory in any layout and in narrow types: strided f32 gives the bits of dense f32,
//! bf16 and f16 give the rounded values of the f32 path, and everything else stays as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::small_optimizer::{bits, give_gradients, models, number, optimizer};
use half::{bf16, f16};
use mmopt::Kind;
use mmopt::optim::{
    GradientAccumulation, GradientAction, Method, ModelSpec, MomentDtype, NonFinite, Optimizer,
    Options, ShareRule, StridedBuffer, StridedBuffers,
};
use mmopt::tensor::DType;
use std::sync::{Arc, Mutex};

/// A tensor of the host, with gaps that must stay as they are.
struct Hosted {
    dtype: DType,
    words: Vec<u64>,
    strides: Vec<i64>,
    first: i64,
    shape: Vec<usize>,
}

const GAP: u64 = 0xa5a5_a5a5_a5a5_a5a5;
/// Dense, column-major, padded rows, every second element, outermost dimension backwards.
const N_LAYOUTS: usize = 5;

impl Hosted {
    fn new(dtype: DType, shape: &[usize], layout: usize) -> Self {
        let mut strides = vec![0i64; shape.len()];
        let mut next = if layout == 3 { 2 } else { 1 };
        let order: Vec<usize> = match layout {
            1 => (0..shape.len()).collect(),
            _ => (0..shape.len()).rev().collect(),
        };
        for &d in &order {
            strides[d] = next;
            next *= shape[d] as i64 + if layout == 2 { 3 } else { 0 };
        }
        let mut first = 0;
        if let (4, Some(outer)) = (layout, strides.first_mut()) {
            first = *outer * (shape[0] as i64 - 1);
            *outer = -*outer;
        }
        let bytes = (next.max(1) as usize + 8) * dtype.size();
        Self { dtype, words: vec![GAP; bytes.div_ceil(8)], strides, first, shape: shape.into() }
    }

    fn place(&mut self, layout: usize) -> StridedBuffer {
        let data = self.words.as_mut_ptr().cast::<u8>();
        let data = data.wrapping_add(self.first as usize * self.dtype.size());
        let strides = (layout > 0).then(|| self.strides.clone());
        StridedBuffer { data, dtype: self.dtype, strides }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn offset(&self, mut element: usize) -> usize {
        let mut at = self.first;
        for (&d, &s) in self.shape.iter().zip(&self.strides).rev() {
            at += (element % d) as i64 * s;
            element /= d;
        }
        at as usize
    }

    fn set(&mut self, element: usize, x: f32) {
        let at = self.offset(element);
        match self.dtype {
            DType::F32 => bytemuck::cast_slice_mut::<u64, f32>(&mut self.words)[at] = x,
            dtype => {
                bytemuck::cast_slice_mut::<u64, u16>(&mut self.words)[at] = narrow(dtype, x);
            }
        }
    }

    /// The element's bits.
    fn bits(&self, element: usize) -> u32 {
        let at = self.offset(element);
        match self.dtype {
            DType::F32 => bytemuck::cast_slice::<u64, u32>(&self.words)[at],
            _ => bytemuck::cast_slice::<u64, u16>(&self.words)[at].into(),
        }
    }

    fn all(&self) -> Vec<u32> {
        (0..self.len()).map(|i| self.bits(i)).collect()
    }

    /// Bits that belong to no element.
    fn gaps_are_whole(&self) -> bool {
        let mut mine = vec![false; self.words.len() * 8 / self.dtype.size()];
        (0..self.len()).for_each(|i| mine[self.offset(i)] = true);
        let size = self.dtype.size();
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        mine.iter().zip(bytes.chunks(size)).all(|(&m, b)| m || b.iter().all(|&b| b == 0xa5))
    }
}

fn narrow(dtype: DType, x: f32) -> u16 {
    match dtype {
        DType::BF16 => bf16::from_f32(x).to_bits(),
        _ => f16::from_f32(x).to_bits(),
    }
}

fn widen(dtype: DType, bits: u32) -> f32 {
    match dtype {
        DType::F32 => f32::from_bits(bits),
        DType::BF16 => bf16::from_bits(bits as u16).to_f32(),
        _ => f16::from_bits(bits as u16).to_f32(),
    }
}

/// The host's models, and an optimizer over them.
struct Host {
    // Dropped first: it holds addresses of the rest.
    optimizer: Optimizer,
    specs: Vec<ModelSpec>,
    values: Vec<Vec<Hosted>>,
    gradients: Vec<Vec<Hosted>>,
}

impl Host {
    /// Values of `dtype` with the given layout; `None` mixes all layouts.
    fn new(options: Options, dtype: DType, grad_dtype: DType, layout: Option<usize>) -> Self {
        let mut specs = models();
        specs.iter_mut().flat_map(|s| &mut s.params).for_each(|p| p.dtype = dtype);
        let mut optimizer = Optimizer::new(options, specs.clone()).unwrap();
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        for (m, spec) in specs.iter().enumerate() {
            let mut places = Vec::new();
            let (mut vs, mut gs) = (Vec::new(), Vec::new());
            for (p, param) in spec.params.iter().enumerate() {
                let value_layout = layout.unwrap_or(p % N_LAYOUTS);
                let grad_layout = layout.unwrap_or((p + m + 1) % N_LAYOUTS);
                let mut v = Hosted::new(dtype, &param.shape, value_layout);
                let mut g = Hosted::new(grad_dtype, &param.shape, grad_layout);
                for i in 0..v.len() {
                    v.set(i, 0.1 * number(&spec.name, &param.name, i, 0));
                }
                places.push(StridedBuffers {
                    value: v.place(value_layout),
                    gradient: g.place(grad_layout),
                });
                vs.push(v);
                gs.push(g);
            }
            // SAFETY: vectors do not move their elements' memory when they are moved, and live as
            // long as the optimizer; the tests touch them between its calls only.
            unsafe { optimizer.bind_strided(m, places) }.unwrap();
            values.push(vs);
            gradients.push(gs);
        }
        optimizer.check_memory().unwrap();
        Self { optimizer, specs, values, gradients }
    }

    fn give_gradients(&mut self, step: u64) {
        for (spec, gradients) in self.specs.iter().zip(&mut self.gradients) {
            for (param, g) in spec.params.iter().zip(gradients) {
                for i in 0..g.len() {
                    g.set(i, 0.01 * number(&spec.name, &param.name, i, step));
                }
            }
        }
    }

    fn step(&mut self, step: u64) {
        let accumulation = u64::from(self.optimizer.options().gradient_accumulation_steps);
        for micro in 0..accumulation {
            self.give_gradients(100 * step + micro);
            for m in 0..self.specs.len() {
                self.optimizer.accumulate(m, 1.0 / step as f64).unwrap();
            }
        }
        self.optimizer.step().unwrap();
    }

    fn bits(&self, model: usize) -> Vec<u32> {
        self.values[model].iter().flat_map(Hosted::all).collect()
    }

    fn gaps_are_whole(&self) -> bool {
        self.values.iter().chain(&self.gradients).flatten().all(Hosted::gaps_are_whole)
    }
}

/// The dense f32 path, from the host's values as they are now.
fn reference(options: Options, host: &Host) -> Optimizer {
    let mut specs = host.specs.clone();
    specs.iter_mut().flat_map(|s| &mut s.params).for_each(|p| p.dtype = DType::F32);
    let mut o = optimizer(options, &specs);
    for (m, values) in host.values.iter().enumerate() {
        for (p, v) in values.iter().enumerate() {
            let to = o.values_mut(m, p).unwrap();
            to.iter_mut().zip(v.all()).for_each(|(t, b)| *t = widen(v.dtype, b));
        }
    }
    o
}

/// Gives the reference the host's gradients, as rounded.
fn copy_gradients(o: &mut Optimizer, host: &Host) {
    for (m, gradients) in host.gradients.iter().enumerate() {
        for (p, g) in gradients.iter().enumerate() {
            let to = o.gradient_mut(m, p).unwrap().as_mut_slice::<f32>().unwrap();
            to.iter_mut().zip(g.all()).for_each(|(t, b)| *t = widen(g.dtype, b));
        }
    }
}

fn step_reference(o: &mut Optimizer, host: &mut Host, step: u64) {
    for micro in 0..u64::from(o.options().gradient_accumulation_steps) {
        host.give_gradients(100 * step + micro);
        copy_gradients(o, host);
        for m in 0..host.specs.len() {
            o.accumulate(m, 1.0 / step as f64).unwrap();
        }
    }
    o.step().unwrap();
}

/// The default preset with gradients shared.
fn gated() -> Options {
    Options { share_rule: ShareRule::Gated, ..Options::default() }
}

/// Configurations that between them take every path through the step.
fn configurations() -> Vec<Options> {
    let base = Options { learning_rate: 1e-2, n_threads: 2, ..gated() };
    vec![
        Options { sync_every: 2, ..base.clone() },
        Options {
            share_rule: ShareRule::Mean,
            max_grad_norm: 0.0,
            max_grad_value: 5e-3,
            ..base.clone()
        },
        Options { amsgrad: true, sync_every: 2, n_threads: 3, ..Options::paper() },
        Options { moment_dtype: MomentDtype::BF16, share_rule: ShareRule::Project, ..base.clone() },
        Options { method: Method::Muon, ..base.clone() },
        Options {
            gradient_accumulation_steps: 2,
            gradient_accumulation: GradientAccumulation::Mean,
            metrics_every: 1,
            ..base
        },
    ]
}

fn rounded(o: &Optimizer, model: usize, spec: &ModelSpec, dtype: DType) -> Vec<u32> {
    let values = (0..spec.params.len()).flat_map(|p| o.values(model, p).unwrap());
    values
        .map(|&x| if dtype == DType::F32 { x.to_bits() } else { narrow(dtype, x).into() })
        .collect()
}

fn check_against_reference(dtype: DType, grad_dtype: DType, layout: Option<usize>) {
    for options in configurations() {
        let mut host = Host::new(options.clone(), dtype, grad_dtype, layout);
        let mut wide = reference(options.clone(), &host);
        for step in 1..=4 {
            host.step(step);
            step_reference(&mut wide, &mut host, step);
            for (m, spec) in host.specs.iter().enumerate() {
                let expected = rounded(&wide, m, spec, dtype);
                assert!(host.bits(m) == expected, "{dtype} step {step} {}: {options:?}", spec.name);
                for p in 0..spec.params.len() {
                    let first = mmopt::optim::Moment::First;
                    let (a, b) =
                        (host.optimizer.moment(m, p, first), wide.moment(m, p, first).unwrap());
                    assert!(a.unwrap() == b);
                }
            }
        }
        assert!(host.gaps_are_whole(), "{options:?}");
    }
}

#[test]
fn strided_f32_gives_the_bits_of_dense_f32() {
    for layout in [Some(0), Some(1), None] {
        check_against_reference(DType::F32, DType::F32, layout);
    }
}

#[test]
fn narrow_values_are_the_rounded_f32_path() {
    for dtype in [DType::BF16, DType::F16] {
        for layout in [Some(0), None] {
            check_against_reference(dtype, dtype, layout);
        }
    }
    check_against_reference(DType::BF16, DType::F32, None);
}

#[test]
fn what_the_host_wrote_since_is_taken() {
    let options = Options { n_threads: 2, learning_rate: 1e-3, ..gated() };
    let mut host = Host::new(options.clone(), DType::BF16, DType::F32, None);
    let mut wide = reference(options, &host);
    for step in 1..=3 {
        host.step(step);
        step_reference(&mut wide, &mut host, step);
    }
    host.values[1][3].set(5, 0.75);
    wide.values_mut(1, 3).unwrap()[5] = 0.75;
    host.step(4);
    step_reference(&mut wide, &mut host, 4);
    for (m, spec) in host.specs.iter().enumerate() {
        assert!(host.bits(m) == rounded(&wide, m, spec, DType::BF16), "{}", spec.name);
    }
}

#[test]
fn a_resumed_training_continues_with_the_same_bits() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let options = Options { n_threads: 2, sync_every: 3, ..gated() };
        let mut first = Host::new(options.clone(), dtype, DType::F32, None);
        (1..=3).for_each(|step| first.step(step));
        let json = first.optimizer.state_json().unwrap();
        let saved: Vec<_> = first.optimizer.state_tensors();
        let masters = saved.iter().filter(|t| t.name.ends_with("/master")).count();
        let n_params: usize = first.specs.iter().map(|s| s.params.len()).sum();
        assert_eq!(masters, if dtype == DType::F32 { 0 } else { n_params });
        let find = |name: &str| {
            let t = saved.iter().find(|t| t.name == name)?;
            Some((t.dtype, t.shape, t.bytes))
        };
        let mut second = Host::new(options.clone(), dtype, DType::F32, None);
        for (to, from) in second.values.iter_mut().flatten().zip(first.values.iter().flatten()) {
            to.words.copy_from_slice(&from.words);
        }
        second.optimizer.load_state(&json, &find).unwrap();
        let without = |name: &str| find(name).filter(|_| !name.ends_with("/master"));
        let lost = second.optimizer.load_state(&json, &without);
        assert_eq!(lost.is_err(), dtype != DType::F32);
        if dtype != DType::F32 {
            let mut other = Host::new(options, DType::F32, DType::F32, None);
            let e = other.optimizer.load_state(&json, &find).unwrap_err();
            assert!(e.kind() == Kind::InvalidData && e.message().contains("another type"), "{e}");
        }
        drop(saved);
        for step in 4..=6 {
            first.step(step);
            second.step(step);
        }
        for m in 0..3 {
            assert!(first.bits(m) == second.bits(m), "{dtype}");
        }
    }
}

#[test]
fn a_skipped_model_is_left_as_it_is() {
    let fail = |non_finite| Options { n_threads: 2, sync_every: 1, non_finite, ..gated() };
    for (options, fails) in [(fail(NonFinite::Skip), false), (fail(NonFinite::Fail), true)] {
        let mut host = Host::new(options, DType::F16, DType::BF16, None);
        host.step(1);
        let before: Vec<_> = (0..3).map(|m| host.bits(m)).collect();
        host.give_gradients(2);
        host.gradients[1][4].set(3, f32::NAN);
        match host.optimizer.step() {
            Ok(report) => assert!(!fails && (report.updated, report.skipped) == (2, 1)),
            Err(e) => assert!(fails && e.kind() == Kind::NonFinite, "{e}"),
        }
        for (m, before) in before.iter().enumerate() {
            assert_eq!(host.bits(m) == *before, fails || m == 1, "model {m}");
        }
    }
}

#[test]
fn an_undone_synchronisation_restores_the_bits() {
    let options = Options {
        n_threads: 2,
        sync_every: 1,
        sync_beta: 0.5,
        max_loss_increase: Some(0.1),
        ..Options::default()
    };
    for dtype in [DType::F32, DType::BF16] {
        let mut host = Host::new(options.clone(), dtype, dtype, None);
        host.step(1);
        let before: Vec<_> = (0..3).map(|m| host.bits(m)).collect();
        assert!(host.optimizer.propose_sync().unwrap());
        assert!((0..3).any(|m| host.bits(m) != before[m]));
        host.optimizer.undo_sync().unwrap();
        assert!((0..3).all(|m| host.bits(m) == before[m]));
    }
}

#[test]
fn frozen_narrow_parameters_can_be_trained_later() {
    let options = Options { n_threads: 1, ..gated() };
    let mut host = Host::new(options, DType::BF16, DType::BF16, None);
    let frozen = host.optimizer.set_trainable("bert", "*", false).unwrap();
    assert!(frozen > 5);
    let before = host.bits(0);
    host.step(1);
    assert!(host.bits(0) == before);
    host.optimizer.set_trainable("bert", "*", true).unwrap();
    host.step(2);
    assert!(host.bits(0) != before);
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let mut specs = models();
    specs[1].params[2].dtype = DType::F64;
    let e = Optimizer::new(Options::default(), specs.clone()).map(|_| ()).unwrap_err();
    let text =
        format!("model 'gpt2', parameter '{}' has element type f64", specs[1].params[2].name);
    assert!(e.kind() == Kind::Unsupported && e.message().starts_with(&text), "{e}");
    specs[1].params[2].trainable = false;
    let mut o = Optimizer::new(Options::default(), specs).unwrap();
    (0..3).for_each(|m| o.bind_owned(m, DType::F32).unwrap());
    give_gradients(&mut o, &models()[..1], 1);
    o.step().unwrap();
    assert!(o.set_trainable("gpt2", "*", true).is_err());
}

/// What one call of the callback saw: model, parameter, name, step, scale.
type Seen = (usize, usize, String, u64, f64);

#[test]
fn the_callback_sees_every_gradient_in_order_and_may_change_it() {
    let options = Options { n_threads: 2, gradient_accumulation_steps: 2, ..gated() };
    let specs = models();
    let mut plain = optimizer(options.clone(), &specs);
    let mut asked = optimizer(options, &specs);
    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let log = seen.clone();
    asked.set_gradient_callback(Some(Box::new(move |g| {
        assert_eq!(g.value.len(), g.shape.iter().product::<usize>());
        assert_eq!((g.gradient.len(), g.gradient_dtype), (4 * g.value.len(), DType::F32));
        let name = format!("{}/{}", g.model_name, g.name);
        log.lock().unwrap().push((g.model, g.param, name, g.step, g.scale));
        Ok(GradientAction::Use)
    })));
    let train = |o: &mut Optimizer, step: u64| {
        for micro in 0..2 {
            give_gradients(o, &specs, 10 * step + micro);
            (0..3).for_each(|m| o.accumulate(m, 1.0).unwrap());
        }
        o.step().unwrap();
    };
    train(&mut plain, 1);
    train(&mut asked, 1);
    for (m, spec) in specs.iter().enumerate() {
        assert!(bits(&plain, m, spec) == bits(&asked, m, spec), "looking changes nothing");
    }
    let expected: Vec<Seen> = specs
        .iter()
        .enumerate()
        .flat_map(|(m, s)| {
            let name = move |p: &mmopt::optim::ParamSpec| format!("{}/{}", s.name, p.name);
            s.params.iter().enumerate().map(move |(i, p)| (m, i, name(p), 1, 0.5))
        })
        .collect();
    assert!(*seen.lock().unwrap() == expected);

    // A gradient of zeros in the callback's hands is a gradient of zeros in the step.
    let zero = |o: &mut Optimizer| {
        o.set_gradient_callback(Some(Box::new(|g| {
            g.gradient.fill(0);
            Ok(GradientAction::Use)
        })));
    };
    zero(&mut asked);
    train(&mut asked, 2);
    assert_eq!(asked.grad_norm(0).unwrap(), 0.0);
    let error = |_: mmopt::optim::GradientView<'_>| {
        Err(mmopt::Error::new(Kind::Cancelled, "the host stops"))
    };
    let before: Vec<_> = specs.iter().enumerate().map(|(m, s)| bits(&asked, m, s)).collect();
    asked.set_gradient_callback(Some(Box::new(error)));
    give_gradients(&mut asked, &specs, 30);
    (0..3).for_each(|m| asked.accumulate(m, 1.0).unwrap());
    assert_eq!(asked.step().unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(asked.step_count(), 2);
    for (m, spec) in specs.iter().enumerate() {
        assert!(bits(&asked, m, spec) == before[m]);
    }
    asked.set_gradient_callback(None);
    assert_eq!(asked.step().unwrap().step, 3);
}

#[test]
fn what_the_host_takes_is_its_own() {
    for dtype in [DType::F32, DType::BF16] {
        let options = Options { n_threads: 2, sync_every: 1, ..gated() };
        let mut host = Host::new(options, dtype, DType::F32, None);
        host.optimizer.set_gradient_callback(Some(Box::new(|g| {
            if g.model_name != "bert" || !g.name.ends_with("query.weight") {
                return Ok(GradientAction::Use);
            }
            g.value.iter_mut().for_each(|x| *x = 3.0);
            Ok(GradientAction::Handled)
        })));
        let query = |p: &mmopt::optim::ParamSpec| p.name.ends_with("query.weight");
        let i = host.specs[0].params.iter().position(query).unwrap();
        host.step(1);
        assert!(host.values[0][i].all().iter().all(|&b| widen(dtype, b) == 3.0));
        let first = host.optimizer.moment(0, i, mmopt::optim::Moment::First).unwrap().unwrap();
        assert!(first.iter().all(|&m| m == 0.0));
        let other = host.optimizer.moment(0, i + 1, mmopt::optim::Moment::First).unwrap().unwrap();
        assert!(other.iter().any(|&m| m != 0.0));
    }
}

//! What a coordinated step costs against a plain sweep over the same memory.
//!
//! Three base-size models, f32. The floor reads p, g, m, v and writes p, m, v with trivial
//! arithmetic. Floor and step alternate within each configuration, so that a drift of the
//! machine hits both; the ratio is that of their medians. The last line is one JSON object,
//! medians in milliseconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{
    AdaptiveLr, Buffers, ModelSpec, NonFinite, Optimizer, Options, SharePolicy, ShareRule,
};
use mmopt::tensor::{DType, Tensor, element_count};
use mmopt_tools::base_models;
use std::time::Instant;

const CHUNK: usize = 65_536;

/// Values and gradients of all models, and moments for the floor.
struct Memory {
    values: Vec<Vec<Tensor>>,
    gradients: Vec<Vec<Tensor>>,
    moments: Vec<[Tensor; 2]>,
}

fn filled(shape: &[usize], scale: f32) -> Tensor {
    let mut t = Tensor::zeros(DType::F32, shape).expect("memory");
    for (i, x) in t.as_mut_slice::<f32>().expect("f32").iter_mut().enumerate() {
        *x = ((i * 2_654_435_761) as u32 as f32 / u32::MAX as f32 - 0.5) * scale;
    }
    t
}

impl Memory {
    fn new(models: &[ModelSpec]) -> Self {
        let all = |scale: f32| -> Vec<Vec<Tensor>> {
            let of = |m: &ModelSpec| m.params.iter().map(|p| filled(&p.shape, scale)).collect();
            models.iter().map(of).collect()
        };
        let moment = |p: &mmopt::optim::ParamSpec| [filled(&p.shape, 1e-3), filled(&p.shape, 1e-6)];
        let moments = models.iter().flat_map(|m| m.params.iter().map(moment)).collect();
        Self { values: all(0.04), gradients: all(1e-2), moments }
    }

    fn bind(&mut self, optimizer: &mut Optimizer) {
        for (m, (values, gradients)) in self.values.iter_mut().zip(&mut self.gradients).enumerate()
        {
            let pairs = values.iter_mut().zip(gradients);
            let buffers = pairs.map(|(v, g)| Buffers {
                param: v.bytes_mut().as_mut_ptr(),
                grad: g.bytes_mut().as_mut_ptr(),
                grad_dtype: DType::F32,
            });
            // SAFETY: `self` outlives the optimizer in `main` and is not touched while it steps.
            unsafe { optimizer.bind(m, buffers.collect()) }.expect("bind");
        }
    }

    /// Pieces (p, g, m, v) of at most a chunk.
    fn pieces(&mut self) -> Vec<[&mut [f32]; 4]> {
        let mut pieces = Vec::new();
        let values = self.values.iter_mut().flatten().zip(self.gradients.iter_mut().flatten());
        for ((p, g), [m, v]) in values.zip(&mut self.moments) {
            let slice = |t| Tensor::as_mut_slice::<f32>(t).expect("f32").chunks_mut(CHUNK);
            for (((p, g), m), v) in slice(p).zip(slice(g)).zip(slice(m)).zip(slice(v)) {
                pieces.push([p, g, m, v]);
            }
        }
        pieces
    }
}

#[inline(always)]
fn touch(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        *m = *m * 0.5 + *g;
        *v = *v * 0.5 + *g;
        *p += *m * 1e-9 + *v * 1e-9;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn touch_avx2(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    touch(p, g, m, v);
}

/// One plain sweep; milliseconds.
fn floor(memory: &mut Memory, threads: usize) -> f64 {
    let mut pieces = memory.pieces();
    let share = pieces.len().div_ceil(threads);
    let work = |pieces: &mut [[&mut [f32]; 4]]| {
        for [p, g, m, v] in pieces {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: just detected.
                unsafe { touch_avx2(p, g, m, v) };
                continue;
            }
            touch(p, g, m, v);
        }
    };
    let start = Instant::now();
    std::thread::scope(|s| {
        for part in pieces.chunks_mut(share) {
            s.spawn(move || work(part));
        }
    });
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median floor and step of a configuration, alternating.
fn measure(memory: &mut Memory, models: &[ModelSpec], options: Options, rounds: usize) -> [f64; 2] {
    let threads = options.n_threads;
    let mut optimizer = Optimizer::new(options, models.to_vec()).expect("optimizer");
    memory.bind(&mut optimizer);
    let (mut floors, mut steps) = (Vec::new(), Vec::new());
    optimizer.step().expect("step");
    for _ in 0..rounds {
        floors.push(floor(memory, threads));
        let start = Instant::now();
        optimizer.step().expect("step");
        steps.push(start.elapsed().as_secs_f64() * 1e3);
    }
    [median(floors), median(steps)]
}

fn configurations(threads: usize) -> Vec<(&'static str, f64, Options)> {
    let plain = Options {
        adaptive_lr: AdaptiveLr::None,
        n_threads: threads,
        non_finite: NonFinite::Ignore,
        ..Options::adamw()
    };
    let paper = Options { n_threads: threads, sync_every: 0, ..Options::paper() };
    let aligned = Options {
        share_policy: SharePolicy::Aligned,
        share_rule: ShareRule::Mean,
        share_every: 1,
        ..plain.clone()
    };
    let default = Options { n_threads: threads, ..Options::default() };
    vec![
        ("update", 1.10, plain.clone()),
        ("checked", 0.0, Options { non_finite: NonFinite::Skip, ..plain.clone() }),
        ("clip", 0.0, Options { max_grad_norm: 1.0, ..plain.clone() }),
        ("paper", 1.25, paper.clone()),
        ("share_sync", 1.35, Options { sync_every: 1, ..paper }),
        ("aligned", 1.5, aligned.clone()),
        ("aligned_sync", 0.0, Options { sync_every: 1, ..aligned.clone() }),
        ("gated", 0.0, Options { share_rule: ShareRule::Gated, ..default.clone() }),
        ("default", 0.0, default),
    ]
}

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (threads, rounds) = (number("BENCH_THREADS", 2), number("BENCH_ROUNDS", 9));
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let layers = number("BENCH_LAYERS", 12);
    let size = base_models::Size { layers, ..base_models::BASE };
    let models = if layers == 12 {
        base_models::base()
    } else {
        vec![
            base_models::bert(size, 3000),
            base_models::gpt2(size, 5000),
            base_models::roberta(size, 5001),
        ]
    };
    let count = |m: &ModelSpec| -> usize {
        m.params.iter().map(|p| element_count(&p.shape).expect("count")).sum()
    };
    let params: usize = models.iter().map(count).sum();
    let mut memory = Memory::new(&models);
    let mut json = serde_json::Map::new();
    let mut floors = Vec::new();
    println!(
        "{:.1} M parameters, f32, {threads} threads, medians of {rounds}",
        params as f64 / 1e6
    );
    println!(
        "{:14} {:>9} {:>9} {:>7} {:>7} {:>8}",
        "", "floor ms", "step ms", "GB/s", "ratio", "bar"
    );
    for (name, bar, options) in configurations(threads) {
        if !only.is_empty() && !only.split(',').any(|o| o == name) {
            continue;
        }
        let [floor, step] = measure(&mut memory, &models, options, rounds);
        let rate = params as f64 * 28.0 / step / 1e6;
        let bar = if bar > 0.0 { format!("<= {bar}") } else { String::new() };
        println!("{name:14} {floor:9.1} {step:9.1} {rate:7.1} {:7.3} {bar:>8}", step / floor);
        let rounded = |x: f64| serde_json::json!((x * 100.0).round() / 100.0);
        json.insert(name.into(), rounded(step));
        json.insert(format!("{name}_ratio"), serde_json::json!((step / floor * 1e4).round() / 1e4));
        floors.push(floor);
    }
    json.insert("floor".into(), serde_json::json!((median(floors) * 100.0).round() / 100.0));
    json.insert("params".into(), serde_json::json!(params));
    json.insert("threads".into(), serde_json::json!(threads));
    println!("{}", serde_json::Value::Object(json));
}

//! Replays recorded joint training through the public API and compares every tensor, rate and
//! multiplier. tests/data/golden/README.md says what the files hold.

use mmopt::optim::{
    AdaptiveLr, LrSchedule, ModelSpec, Moment, Optimizer, Options, ParamSpec, PublishedMultiplier,
    ShareRule, paper_class, paper_multiplier, paper_rate, paper_rate_factor, paper_scale, trend,
};
use mmopt::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The worst of each kind in one file, as a multiple of its tolerance.
#[derive(Default)]
pub struct Worst {
    pub kinds: Vec<(&'static str, f64)>,
    pub compared: usize,
}

impl Worst {
    fn note(&mut self, kind: &'static str, excess: f64) {
        let excess = if excess.is_nan() { f64::INFINITY } else { excess };
        self.compared += 1;
        match self.kinds.iter_mut().find(|k| k.0 == kind) {
            Some(k) => k.1 = k.1.max(excess),
            None => self.kinds.push((kind, excess)),
        }
    }

    /// Largest multiple of a tolerance; above 1 the file fails.
    pub fn max(&self) -> f64 {
        if self.compared == 0 {
            return f64::INFINITY;
        }
        self.kinds.iter().map(|k| k.1).fold(0.0, f64::max)
    }
}

fn excess(got: f64, want: f64, relative: f64, absolute: f64) -> f64 {
    (got - want).abs() / (absolute + relative * want.abs())
}

struct Recording<'a> {
    json: Value,
    tensors: SafeTensors<'a>,
}

impl Recording<'_> {
    /// Row `row` of a tensor whose first dimension counts steps; `None` when absent.
    fn row(&self, name: &str, row: usize) -> Option<Vec<f32>> {
        let view = self.tensors.tensor(name).ok()?;
        let n: usize = view.shape()[1..].iter().product();
        let bytes = &view.data()[row * n * 4..(row + 1) * n * 4];
        Some(bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn loss(&self, model: &str, micro: usize) -> f64 {
        let view = self.tensors.tensor(&format!("loss/{model}")).expect("loss");
        let b = &view.data()[micro * 8..micro * 8 + 8];
        f64::from_le_bytes(b.try_into().expect("8 bytes"))
    }
}

struct Param {
    name: String,
    shape: Vec<usize>,
    trainable: bool,
}

fn text(v: &Value) -> String {
    v.as_str().expect("text").to_string()
}

fn models(json: &Value) -> Vec<(String, Vec<Param>)> {
    let mut models: Vec<(String, Vec<Param>)> = Vec::new();
    for p in json["params"].as_array().expect("params") {
        let model = text(&p["model"]);
        if models.iter().all(|m| m.0 != model) {
            models.push((model.clone(), Vec::new()));
        }
        let shape = p["shape"].as_array().expect("shape");
        let param = Param {
            name: text(&p["name"]),
            shape: shape.iter().map(|d| d.as_u64().expect("dim") as usize).collect(),
            trainable: p["requires_grad"].as_bool().expect("requires_grad"),
        };
        models.iter_mut().find(|m| m.0 == model).expect("model").1.push(param);
    }
    models
}

/// The paper preset with the recording's hyper-parameters.
fn options(json: &Value) -> Options {
    let o = &json["optimizer"];
    let f = |v: &Value| v.as_f64().expect("number");
    let u = |v: &Value| v.as_u64().expect("integer");
    let every = u(&o["grad_sync_frequency"]);
    let mut options = Options {
        learning_rate: f(&o["lr"]),
        beta1: f(&o["betas"][0]),
        beta2: f(&o["betas"][1]),
        eps: f(&o["eps"]),
        weight_decay: f(&o["weight_decay"]),
        amsgrad: o["amsgrad"].as_bool().expect("amsgrad"),
        share_every: every,
        sync_every: if o["sync_every_step"].as_bool().expect("sync") { 10 } else { 0 },
        gradient_accumulation_steps: u(&o["gradient_accumulation_steps"]) as u32,
        max_grad_norm: o["clip_grad_norm"].as_f64().unwrap_or(0.0),
        published_multiplier: Some(PublishedMultiplier {
            warmup_steps: u(&o["warmup_steps"]),
            cosine: o["use_cosine_schedule"].as_bool().expect("cosine"),
        }),
        adaptive_lr: AdaptiveLr::None,
        n_threads: 2,
        ..Options::paper()
    };
    assert_eq!(options.share_rule, ShareRule::Sum);
    if let Value::Object(s) = &json["scheduler"] {
        options.lr_schedule = LrSchedule::Published;
        options.warmup_steps = u(&s["warmup_steps"]);
        options.total_steps = u(&s["total_steps"]);
        options.min_lr_ratio = f(&s["min_lr_ratio"]);
    }
    if let Value::Object(c) = &json["convergence_update"] {
        options.adaptive_lr = AdaptiveLr::Published;
        options.adaptive_lr_every = u(&c["every"]);
        options.adaptive_lr_window = u(&c["window"]) as usize;
    }
    options
}

fn optimizer(json: &Value, models: &[(String, Vec<Param>)]) -> Optimizer {
    let spec = |(name, params): &(String, Vec<Param>)| {
        let params = params.iter().map(|p| ParamSpec {
            trainable: p.trainable,
            ..ParamSpec::new(p.name.clone(), &p.shape)
        });
        let mut spec = ModelSpec::new(name.clone(), params.collect());
        let weights = &json["optimizer"]["model_weights"];
        spec.weight = weights.get(name).and_then(Value::as_f64).unwrap_or(1.0);
        spec
    };
    let mut optimizer =
        Optimizer::new(options(json), models.iter().map(spec).collect()).expect("optimizer");
    for m in 0..models.len() {
        optimizer.bind_owned(m, DType::F32).expect("memory");
    }
    optimizer.set_step_count(json["start_step_count"].as_u64().expect("start"));
    optimizer
}

/// Every recording and table of a folder, in order of name.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let table = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("table_"));
        let recorded = path.with_extension("safetensors").is_file();
        if path.extension().is_some_and(|e| e == "json") && (table || recorded) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Replays a recording or checks a table.
pub fn check(path: &Path) -> Worst {
    let json: Value =
        serde_json::from_slice(&std::fs::read(path).expect("json file")).expect("json");
    let mut worst = Worst::default();
    match path.file_stem().and_then(|s| s.to_str()) {
        Some("table_classify") => check_classes(&json, &mut worst),
        Some("table_multiplier") => check_multipliers(&json, &mut worst),
        Some("table_scheduler") => check_scales(&json, &mut worst),
        Some("table_convergence") => check_convergence(&json, &mut worst),
        _ => return replay(path),
    }
    worst
}

fn check_classes(json: &Value, worst: &mut Worst) {
    for (section, rows) in json.as_object().expect("sections") {
        for row in rows.as_array().expect("rows").iter().filter(|_| section != "columns") {
            let right = paper_class(row[0].as_str().expect("name")) == text(&row[1]);
            worst.note("class", if right { 0.0 } else { f64::INFINITY });
        }
    }
}

fn check_multipliers(json: &Value, worst: &mut Worst) {
    for row in json["rows"].as_array().expect("rows") {
        let u = |i: usize| row[i].as_u64().expect("integer");
        let m = PublishedMultiplier { warmup_steps: u(1), cosine: row[2].as_bool().expect("flag") };
        let got = paper_multiplier(&m, u(0), u(3) as u32);
        worst.note("multiplier", excess(got, row[4].as_f64().expect("number"), 1e-12, 1e-14));
    }
}

fn check_scales(json: &Value, worst: &mut Worst) {
    for row in json["rows"].as_array().expect("rows") {
        let u = |i: usize| row[i].as_u64().expect("integer");
        let got = paper_scale(u(0), u(2), u(1), row[3].as_f64().expect("floor"));
        worst.note("scale", excess(got, row[4].as_f64().expect("number"), 1e-12, 1e-14));
    }
}

fn check_convergence(json: &Value, worst: &mut Worst) {
    let numbers = |v: &Value| -> Vec<f64> {
        v.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("number")).collect()
    };
    for curve in json.as_array().expect("curves") {
        let losses = numbers(&curve["losses"]);
        let window = curve["window"].as_u64().expect("window") as usize;
        let enough = losses.len() >= window;
        let slope = trend(losses[losses.len().saturating_sub(window)..].iter()).slope;
        if let Some(want) = curve["slope_of_last_window"].as_f64() {
            worst.note("slope", excess(slope, want, 1e-9, 1e-12));
        }
        let mut rate = 1.0;
        let rates = numbers(&curve["rate_after_each_update"]);
        for (want, factor) in rates.iter().zip(numbers(&curve["lr_factor"])) {
            rate = if enough { paper_rate(rate, slope) } else { rate };
            worst.note("adaptive", excess(rate, *want, 1e-12, 1e-15));
            worst.note("factor", excess(paper_rate_factor(rate), factor, 1e-12, 1e-15));
        }
    }
}

/// Replays one recording.
pub fn replay(json_path: &Path) -> Worst {
    let json = std::fs::read(json_path).expect("json file");
    let bytes = std::fs::read(json_path.with_extension("safetensors")).expect("tensor file");
    let r = Recording {
        json: serde_json::from_slice(&json).expect("json"),
        tensors: SafeTensors::deserialize(&bytes).expect("safetensors"),
    };
    let models = models(&r.json);
    let mut o = optimizer(&r.json, &models);
    let mut worst = Worst::default();
    for (m, (name, params)) in models.iter().enumerate() {
        for (p, param) in params.iter().enumerate() {
            let start = r.row(&format!("param/{name}/{}", param.name), 0).expect("start value");
            o.values_mut(m, p).expect("values").copy_from_slice(&start);
        }
    }
    let accumulation = o.options().gradient_accumulation_steps as usize;
    let steps = r.json["steps"].as_array().expect("steps");
    for (t, step) in steps.iter().enumerate() {
        for micro in t * accumulation..(t + 1) * accumulation {
            for (m, (name, params)) in models.iter().enumerate() {
                give_gradients(&mut o, &r, m, name, params, micro, step);
                o.accumulate(m, r.loss(name, micro)).expect("accumulate");
            }
        }
        o.step().expect("step");
        compare(&o, &r, &models, t, step, &mut worst);
    }
    worst
}

fn give_gradients(
    o: &mut Optimizer,
    r: &Recording<'_>,
    m: usize,
    model: &str,
    params: &[Param],
    micro: usize,
    step: &Value,
) {
    let missing = step["missing"].as_array().expect("missing");
    for (p, param) in params.iter().enumerate() {
        let gone = missing.iter().any(|x| x[0] == model && x[1] == param.name.as_str());
        let row = r.row(&format!("grad/{model}/{}", param.name), micro).filter(|_| !gone);
        o.set_has_gradient(m, p, row.is_some()).expect("present");
        if let Some(row) = row {
            let gradient = o.gradient_mut(m, p).expect("gradient");
            gradient.as_mut_slice::<f32>().expect("f32").copy_from_slice(&row);
        }
    }
}

fn compare(
    o: &Optimizer,
    r: &Recording<'_>,
    models: &[(String, Vec<Param>)],
    t: usize,
    step: &Value,
    worst: &mut Worst,
) {
    assert_eq!(step["step_count"].as_u64(), Some(o.step_count()));
    for (m, (name, params)) in models.iter().enumerate() {
        let rates = o.rates(m).expect("rates");
        let lr = step["group_lr_used"][name].as_f64().expect("lr");
        let ours = rates.base * rates.schedule * rates.adaptive;
        worst.note("rate", excess(ours, lr, 1e-12, 1e-15));
        let mu = step["multiplier"].as_f64().expect("multiplier");
        worst.note("multiplier", excess(rates.multiplier, mu, 1e-12, 1e-15));
        if let Some(rate) = step["convergence_rates_after"][name].as_f64() {
            let ours = o.adaptive_state(m).expect("state");
            worst.note("adaptive", excess(ours, rate, 1e-12, 1e-15));
        }
        let norm = step["grad_norm_before_clip"][name].as_f64();
        if let Some(norm) = norm.filter(|_| o.options().max_grad_norm > 0.0) {
            worst.note("norm", excess(o.grad_norm(m).expect("norm"), norm, 2e-6, 1e-9));
        }
        for (p, param) in params.iter().enumerate() {
            let mut check = |kind: &'static str, got: Option<&[f32]>, rtol: f64, atol: f64| {
                let key = format!("{kind}/{name}/{}", param.name);
                let Some(want) = r.row(&key, t + 1) else { return };
                let zeros = vec![0.0; want.len()];
                let got = got.unwrap_or(&zeros);
                for (g, w) in got.iter().zip(&want) {
                    worst.note(kind, excess(f64::from(*g), f64::from(*w), rtol, atol));
                }
            };
            let moment = |which| o.moment(m, p, which).expect("moment");
            check("param", Some(o.values(m, p).expect("values")), 2e-6, 2e-6);
            check("exp_avg", moment(Moment::First), 1e-5, 1e-7);
            check("exp_avg_sq", moment(Moment::Second), 1e-5, 1e-10);
            check("max_exp_avg_sq", moment(Moment::Maximum), 1e-5, 1e-10);
        }
    }
}

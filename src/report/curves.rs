//! What is measured at each step and each evaluation, as plots.
//!
//! With one set of runs the lines of a plot are its models. With several, each model has a plot of
//! its own, whose lines are the sets.

use std::collections::BTreeSet;

use super::log::{Run, Series};
use super::markup::{count, details, number, paragraph, table};
use super::plot::{Line, Plot, explanation};
use super::runs::Set;
use super::thin::Curve;

/// How a quantity is drawn.
#[derive(Clone, Copy)]
struct Quantity {
    /// In [`Run::of_models`] or [`Run::of_run`].
    key: &'static str,
    title: &'static str,
    y_label: &'static str,
    note: &'static str,
    look: Look,
    /// With several sets, others are shown on demand only.
    is_main: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    /// May be logarithmic.
    Wide,
    /// From 0 on.
    FromZero,
    /// A share of steps, from 0 on and without a band.
    Share,
}

const fn quantity(
    key: &'static str,
    title: &'static str,
    y_label: &'static str,
    look: Look,
    is_main: bool,
    note: &'static str,
) -> Quantity {
    Quantity { key, title, y_label, note, look, is_main }
}

const SCORES: &[Quantity] = &[
    quantity("loss", "Training loss", "loss", Look::Wide, true, ""),
    quantity("evaluation.score", "Score on the evaluation set", "score", Look::Plain, true, ""),
    quantity("evaluation.loss", "Loss on the evaluation set", "loss", Look::Wide, true, ""),
    quantity("accuracy", "Accuracy on training batches", "share correct", Look::Plain, false, ""),
    quantity(
        "mutual_loss",
        "Mutual loss: how far a model is from its teachers",
        "loss",
        Look::Wide,
        false,
        "",
    ),
];

const RATES: &[Quantity] = &[
    quantity("learning_rate", "Learning rate", "rate", Look::Plain, true, ""),
    quantity(
        "rates.adaptive",
        "Adaptive factor of the learning rate",
        "factor",
        Look::Plain,
        false,
        "",
    ),
    quantity("rates.schedule", "Schedule: warm-up and decay", "factor", Look::Plain, false, ""),
    quantity("rates.scale", "Factor of the model's weight", "factor", Look::Plain, false, ""),
    quantity("rates.multiplier", "Published second multiplier", "factor", Look::Plain, false, ""),
    quantity("rates.base", "Base learning rate", "rate", Look::Wide, false, ""),
    quantity("weight", "Weight among the models", "share", Look::Plain, false, ""),
    quantity(
        "convergence.progress",
        "Convergence: progress",
        "relative fall of the loss",
        Look::Plain,
        false,
        "Fall of the loss over the window of the adaptive rate, relative to the loss; below 0 it \
         rises.",
    ),
    quantity(
        "convergence.certainty",
        "Convergence: certainty of the trend",
        "from −1 to 1",
        Look::Plain,
        false,
        "1: the loss surely falls, −1: it surely rises, near 0: noise.",
    ),
    quantity("convergence.slope", "Convergence: slope", "loss per loss", Look::Plain, false, ""),
    quantity(
        "convergence.adaptive_state",
        "Convergence: state of the adaptive rate",
        "state",
        Look::Plain,
        false,
        "",
    ),
];

const GRADIENTS: &[Quantity] = &[
    quantity("gradient_norm", "Gradient norm before clipping", "L2 norm", Look::Wide, true, ""),
    quantity("clipped", "Clipped steps", "share of steps", Look::Share, false, ""),
    quantity(
        "clip_factor",
        "Factor that clipping left of the gradient",
        "factor",
        Look::Plain,
        false,
        "",
    ),
];

const SPEED: &[Quantity] = &[
    quantity("tokens_per_second", "Tokens a second", "all models", Look::FromZero, true, ""),
    quantity(
        "examples_per_second",
        "Examples a second",
        "rows of the batches",
        Look::FromZero,
        false,
        "",
    ),
    quantity("seconds", "Time of a step", "seconds", Look::FromZero, false, ""),
    quantity(
        "peak_memory_bytes",
        "Peak memory of the process",
        "GiB",
        Look::FromZero,
        true,
        "Host memory, not that of a GPU.",
    ),
];

/// The style of what is the same for all models: grey.
const ALL_MODELS: usize = 6;

/// What all plots of a page share.
pub(super) struct Context<'a> {
    pub sets: &'a [Set],
    /// Every model of every run, once; its position is its style.
    pub models: Vec<String>,
    /// Points of a curve.
    pub n_points: usize,
}

impl<'a> Context<'a> {
    pub(super) fn new(sets: &'a [Set]) -> Self {
        let mut models: Vec<String> = Vec::new();
        for run in sets.iter().flat_map(|s| &s.runs) {
            let new = run.models.iter().filter(|m| !models.contains(m)).cloned();
            models.extend(new.collect::<Vec<_>>());
        }
        // Some twenty quantities; a page of many runs gets coarser curves.
        let n_curves = 20 * models.len().max(1) * sets.len().max(1);
        Self { sets, models, n_points: (40_000 / n_curves).clamp(40, 360) }
    }

    pub(super) fn style(&self, model: &str) -> usize {
        self.models.iter().position(|m| m == model).unwrap_or(self.models.len())
    }

    fn curve(&self, set: &Set, series: impl Fn(&Run) -> Series) -> Curve {
        let all: Vec<Series> = set.runs.iter().map(series).collect();
        let all: Vec<&[(f64, f64)]> = all.iter().map(Vec::as_slice).collect();
        Curve::new(&all, self.n_points)
    }
}

/// A section: plots of quantities, and a sentence on those that never change.
pub(super) fn scores(context: &Context) -> String {
    let mut all = SCORES.to_vec();
    let runs = || context.sets.iter().flat_map(|s| &s.runs);
    let keys: BTreeSet<&str> =
        runs().flat_map(|r| r.of_models.keys().map(String::as_str)).collect();
    for (key, title, is_wide) in OTHER_SCORES {
        // One that is the score itself says nothing new.
        let is_score = |r: &Run| {
            let own = r.of_models.get(*key);
            own.is_none() || own == r.of_models.get("evaluation.score")
        };
        if keys.contains(key) && !runs().all(is_score) {
            let look = if *is_wide { Look::Wide } else { Look::Plain };
            all.push(quantity(key, title, "evaluation set", look, false, ""));
        }
    }
    section(context, &all, "loss")
}

/// Numbers of an evaluation that may differ from its score.
const OTHER_SCORES: &[(&str, &str, bool)] = &[
    ("scores.accuracy", "Accuracy on the evaluation set", false),
    ("scores.macro_f1", "Macro F1 on the evaluation set", false),
    ("scores.entity_f1", "F1 of entities", false),
    ("scores.entity_precision", "Precision of entities", false),
    ("scores.entity_recall", "Recall of entities", false),
    ("scores.exact_match", "Exact match of answers", false),
    ("scores.answer_f1", "F1 of answers", false),
    ("scores.perplexity", "Perplexity", true),
];

pub(super) fn rates(context: &Context) -> String {
    section(context, RATES, "rate")
}

pub(super) fn gradients(context: &Context) -> String {
    section(context, GRADIENTS, "gradient") + &gradient_table(context)
}

pub(super) fn speed(context: &Context) -> String {
    let mut plots = Vec::new();
    for (i, q) in SPEED.iter().enumerate() {
        let scale = if q.key == "peak_memory_bytes" { 1.0 / f64::from(1 << 30) } else { 1.0 };
        let series = |r: &Run| r.of_run(q.key).iter().map(|p| (p.0, p.1 * scale)).collect();
        let line = |(style, set): (usize, &Set)| Line {
            name: set.name.clone(),
            style,
            curve: context.curve(set, series),
        };
        let lines = context.sets.iter().enumerate().map(line).collect();
        let is_hidden = context.sets.len() > 1 && !q.is_main;
        plots.push((is_hidden, plot(q, format!("speed-{i}"), q.title.to_owned(), lines)));
    }
    together(&plots, "")
}

fn plot(q: &Quantity, id: String, title: String, lines: Vec<Line>) -> Plot {
    Plot {
        id,
        title,
        y_label: q.y_label.to_owned(),
        note: q.note.to_owned(),
        lines,
        may_be_log: q.look == Look::Wide,
        from_zero: matches!(q.look, Look::FromZero | Look::Share),
        without_bands: q.look == Look::Share,
        ..Plot::default()
    }
}

fn section(context: &Context, quantities: &[Quantity], id: &str) -> String {
    let (mut all, mut constant) = (Vec::new(), Vec::new());
    for (i, q) in quantities.iter().enumerate() {
        if let Some(text) = constants(context, q) {
            constant.push(text);
            continue;
        }
        let is_hidden = context.sets.len() > 1 && !q.is_main;
        all.extend(plots(context, q, &format!("{id}-{i}")).into_iter().map(|p| (is_hidden, p)));
    }
    let note = match constant.is_empty() {
        true => String::new(),
        false => format!("The same at every step: {}.", constant.join("; ")),
    };
    together(&all, &note)
}

/// Plots, those that are hidden on demand, and what is to be known of them.
fn together(plots: &[(bool, Plot)], note: &str) -> String {
    let html = |hidden: bool| -> String {
        plots.iter().filter(|p| p.0 == hidden).map(|p| p.1.html()).collect()
    };
    let (shown, more) = (html(false), html(true));
    let mut out = String::new();
    if !shown.is_empty() {
        out += &format!("<div class=\"plots\">\n{shown}</div>\n");
    }
    if !more.is_empty() {
        out += &details("More curves", &format!("<div class=\"plots\">\n{more}</div>\n"));
    }
    let about = explanation(&plots.iter().map(|p| &p.1).collect::<Vec<_>>());
    for text in [note, &about].into_iter().filter(|t| !t.is_empty()) {
        out += &paragraph("note", text);
    }
    out
}

fn plots(context: &Context, q: &Quantity, id: &str) -> Vec<Plot> {
    let line = |set: &Set, model: &str, name: &str, style| {
        let curve = context.curve(set, |run| run.of_model(q.key, model).to_vec());
        Line { name: name.to_owned(), style, curve }
    };
    if let [set] = context.sets {
        let models = context.models.iter().enumerate();
        let mut lines: Vec<Line> = models.map(|(i, model)| line(set, model, model, i)).collect();
        // Lines that lie on each other are one.
        let is_first = |l: &Line| l.curve.points == lines[0].curve.points;
        if lines.len() > 1 && lines.iter().all(is_first) {
            lines.truncate(1);
            (lines[0].name, lines[0].style) = ("all models".to_owned(), ALL_MODELS);
        }
        return vec![plot(q, id.to_owned(), q.title.to_owned(), lines)];
    }
    let one = |(m, model): (usize, &String)| {
        let lines = context.sets.iter().enumerate();
        let lines = lines.map(|(i, set)| line(set, model, &set.name, i)).collect();
        plot(q, format!("{id}-{m}"), format!("{}: {model}", q.title), lines)
    };
    context.models.iter().enumerate().map(one).collect()
}

/// The value of a quantity that no step changes, as text.
fn constants(context: &Context, q: &Quantity) -> Option<String> {
    let mut values: Vec<(&str, f64)> = Vec::new();
    for run in context.sets.iter().flat_map(|s| &s.runs) {
        for model in &run.models {
            let mut series = run.of_model(q.key, model).iter().map(|p| p.1);
            let Some(first) = series.next() else { continue };
            if !first.is_finite() || series.any(|v| v != first) {
                return None;
            }
            values.push((model, first));
        }
    }
    let (_, first) = *values.first()?;
    let name = q.title.to_lowercase();
    if values.iter().all(|v| v.1 == first) {
        // Few evaluations of one value are worth a plot; the log has one record of each.
        return (!q.key.starts_with("evaluation")).then(|| format!("{name} {}", number(first, 4)));
    }
    values.sort_by(|a, b| a.0.cmp(b.0).then(a.1.total_cmp(&b.1)));
    values.dedup();
    if values.len() > 8 || q.key.starts_with("evaluation") {
        return None;
    }
    let each: Vec<String> = values.iter().map(|(m, v)| format!("{m} {}", number(*v, 4))).collect();
    Some(format!("{name} ({})", each.join(", ")))
}

/// Clipped and skipped steps of each model.
fn gradient_table(context: &Context) -> String {
    let mut rows = Vec::new();
    for run in context.sets.iter().flat_map(|s| &s.runs) {
        for model in &run.models {
            let loss = run.of_model("loss", model);
            if loss.is_empty() {
                continue;
            }
            let norms = run.of_model("gradient_norm", model).iter().map(|p| p.1);
            let mut norms: Vec<f64> = norms.filter(|n| n.is_finite()).collect();
            norms.sort_unstable_by(f64::total_cmp);
            let norm = |part: f64| match norms.is_empty() {
                true => "–".to_owned(),
                false => number(norms[((norms.len() - 1) as f64 * part) as usize], 4),
            };
            let (clipped, skipped) = (run.of_model("clipped", model), skipped(run, model));
            rows.push(vec![
                model.clone(),
                run.name.clone(),
                count(loss.len()),
                norm(0.5),
                norm(1.0),
                share(clipped),
                skipped,
                count(loss.iter().filter(|p| !p.1.is_finite()).count()),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads = [
        "model",
        "run",
        "steps in the log",
        "median norm",
        "greatest norm",
        "steps clipped",
        "steps skipped",
        "losses not finite",
    ];
    table("Gradients, clipping and skipped steps", &heads.map(str::to_owned), &rows)
}

/// How many steps skipped a model, and which, as far as the log has them.
fn skipped(run: &Run, model: &str) -> String {
    let total = run.of_model("n_skipped", model).iter().map(|p| p.1).fold(0.0, f64::max);
    let at: Vec<f64> =
        run.of_model("skipped", model).iter().filter(|p| p.1 == 1.0).map(|p| p.0).collect();
    let n = (total as usize).max(at.len());
    if at.is_empty() {
        return count(n);
    }
    let shown: Vec<String> = at.iter().take(5).map(|s| number(*s, 9)).collect();
    let rest = if at.len() > 5 { ", …" } else { "" };
    format!("{} (at {}{rest})", count(n), shown.join(", "))
}

fn share(flags: &[(f64, f64)]) -> String {
    let known: Vec<f64> = flags.iter().map(|p| p.1).filter(|v| v.is_finite()).collect();
    if known.is_empty() {
        return "–".to_owned();
    }
    let part = known.iter().sum::<f64>() / known.len() as f64;
    format!("{} %", number(100.0 * part, 3))
}

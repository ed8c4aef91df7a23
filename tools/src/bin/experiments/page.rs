//! results.json, and the tables of results.md and README.md between their marks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::arms::{ARMS, Arm};
use crate::grid::{LONG, RATES, REGIMES, TASKS};
use crate::run::{self, MODELS};
use crate::statistics::{Curve, Mean, bootstrap};
use crate::{Result, Settings, examples, lines};

const BEGIN: &str = "<!-- tables: written by `experiments report` -->";
const END: &str = "<!-- end of tables -->";
/// Around the table of the README.
const SUMMARY: [&str; 2] =
    ["<!-- results: written by `experiments report` -->", "<!-- end of results -->"];

type Key = (String, String, String, u64);

/// Which epoch's scores count.
#[derive(Clone, Copy)]
enum Epoch {
    Last,
    /// The one with the best validation score.
    Best,
}

impl Epoch {
    /// Held-in and evaluation score.
    fn of(self, curve: &Curve) -> (f64, Option<f64>) {
        match self {
            Self::Last => curve.last(),
            Self::Best => curve.best(),
        }
    }
}

/// Runs by regime, task, arm and seed, one for each setting, and what is known of their examples.
struct Runs(BTreeMap<Key, Vec<Value>>, BTreeMap<String, Value>);

/// What the compared arms are run with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting {
    rate: f64,
    /// With twice the epochs.
    is_long: bool,
}

const FIRST: Setting = Setting { rate: RATES[0], is_long: false };

impl Setting {
    fn of(run: &Value) -> Self {
        let cell = run["cell"].as_str().unwrap_or_default();
        let kind = cell.rsplit_once('/').map_or(cell, |(kind, _)| kind);
        let rate = run["learning_rate"].as_f64().unwrap_or(RATES[0]);
        Self { rate, is_long: kind.contains('@') && kind.ends_with(LONG) }
    }

    /// All rates with so many epochs.
    fn with(is_long: bool) -> impl Iterator<Item = Self> {
        RATES.into_iter().map(move |rate| Self { rate, is_long })
    }

    fn all() -> impl Iterator<Item = Self> {
        Self::with(false).chain(Self::with(true))
    }
}

impl Runs {
    fn of(lines: Vec<Value>, examples: Vec<Value>) -> Self {
        let mut runs: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for run in lines {
            let text = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
            let key =
                (text("regime"), text("task"), text("arm"), run["seed"].as_u64().unwrap_or(0));
            // What tuned settings has further parts in its name.
            if text("cell").matches('/').count() == 3 {
                let all = runs.entry(key).or_default();
                all.retain(|r| Setting::of(r) != Setting::of(&run));
                all.push(run);
            }
        }
        let cell = |e: Value| Some((e["cell"].as_str()?.to_owned(), e));
        Self(runs, examples.into_iter().filter_map(cell).collect())
    }

    /// Of each example the counts of a run's model.
    fn counts(&self, run: &Value, model: &str) -> Option<Vec<[u32; 3]>> {
        examples::read(self.1.get(run["cell"].as_str()?)?[model].as_str()?)
    }

    /// The interval of the mean gain over examples, in points, of the seeds whose examples are known.
    fn interval(&self, regime: &str, task: &str, arm: &str) -> Option<(f64, f64)> {
        let mut pairs = Vec::new();
        for (_, base, run) in self.paired(regime, task, arm) {
            for model in MODELS {
                let (Some(base), Some(run)) = (self.counts(base, model), self.counts(run, model))
                else {
                    continue;
                };
                pairs.push((base, run));
            }
        }
        let n = pairs.first()?.0.len();
        let of = |counts, chosen: &[usize]| examples::score(counts, chosen.iter().copied());
        Some(bootstrap(n, |chosen| {
            let gains = pairs.iter().map(|(base, run)| of(run, chosen) - of(base, chosen));
            100.0 * gains.sum::<f64>() / pairs.len() as f64
        }))
    }

    /// An arm's runs of one setting, by seed.
    fn at(&self, regime: &str, task: &str, arm: &str, how: Setting) -> Vec<(u64, &Value)> {
        let is = |k: &Key| k.0 == regime && k.1 == task && k.2 == arm;
        let found = self.0.iter().filter(|(k, _)| is(k));
        found.filter_map(|(k, r)| Some((k.3, r.iter().find(|r| Setting::of(r) == how)?))).collect()
    }

    /// The mean validation score of an arm's last epoch with one setting, over seeds and models.
    fn held_in(&self, regime: &str, task: &str, arm: &str, how: Setting) -> Option<f64> {
        let runs = self.at(regime, task, arm, how);
        let last = |run| MODELS.into_iter().filter_map(move |m| Some(Curve::of(run, m)?.last().0));
        mean(runs.into_iter().flat_map(|(_, run)| last(run)))
    }

    /// Whether an arm and independent training were run at all rates with so many epochs, with as
    /// many seeds as with the first setting.
    fn is_tuned(&self, regime: &str, task: &str, arm: &str, is_long: bool) -> bool {
        [arm, "independent"].iter().all(|arm| {
            let n = |how| self.at(regime, task, arm, how).len();
            n(FIRST) > 0 && Setting::with(is_long).all(|how| n(how) >= n(FIRST))
        })
    }

    /// The setting with the best validation scores, the first of equals.
    fn best(
        &self,
        (regime, task, arm): (&str, &str, &str),
        mut of: impl Iterator<Item = Setting>,
    ) -> Setting {
        let score = |how: Setting| self.held_in(regime, task, arm, how);
        let first = of.next().unwrap_or(FIRST);
        of.fold(first, |best, how| if score(how) > score(best) { how } else { best })
    }

    /// The setting in which an arm is reported beside `other`. Where both were run at all rates:
    /// with the number of epochs that is best for independent training, at the arm's best rate.
    fn setting(&self, (regime, task, arm): (&str, &str, &str), other: &str) -> Setting {
        let is_tuned = |is_long: &bool| self.is_tuned(regime, task, other, *is_long);
        let tuned: Vec<bool> = [false, true].into_iter().filter(is_tuned).collect();
        if tuned.is_empty() {
            return FIRST;
        }
        let all = tuned.into_iter().flat_map(Setting::with);
        let Setting { is_long, .. } = self.best((regime, task, "independent"), all);
        self.best((regime, task, arm), Setting::with(is_long))
    }

    /// An arm's runs in the setting in which it is reported.
    fn seeds(&self, regime: &str, task: &str, arm: &str) -> Vec<(u64, &Value)> {
        self.reported(regime, task, arm, arm)
    }

    /// The runs of an arm that stand beside those of `other`: both tuned, or both with the first
    /// setting.
    fn reported(&self, regime: &str, task: &str, arm: &str, other: &str) -> Vec<(u64, &Value)> {
        self.at(regime, task, arm, self.setting((regime, task, arm), other))
    }

    /// Of each seed that both have: the run of independent training and the arm's.
    fn paired(&self, regime: &str, task: &str, arm: &str) -> Vec<(u64, &Value, &Value)> {
        let own = self.seeds(regime, task, arm);
        let pair = |(seed, base)| {
            let (_, run) = own.iter().find(|(s, _)| *s == seed)?;
            Some((seed, base, *run))
        };
        self.reported(regime, task, "independent", arm).into_iter().filter_map(pair).collect()
    }

    /// Of each seed that both arms have: evaluation scores, in points.
    fn pairs(
        &self,
        (regime, task, arm): (&str, &str, &str),
        model: &str,
        epoch: Epoch,
    ) -> Vec<(u64, f64, f64)> {
        let score = |run: &Value| epoch.of(&Curve::of(run, model)?).1.map(|x| 100.0 * x);
        let pair = |(seed, base, run)| Some((seed, score(base)?, score(run)?));
        self.paired(regime, task, arm).into_iter().filter_map(pair).collect()
    }

    /// The mean gain of the three models, by seed.
    fn gain(&self, cell: (&str, &str, &str), epoch: Epoch) -> Mean {
        let mut gains: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (seed, a, b) in MODELS.iter().flat_map(|m| self.pairs(cell, m, epoch)) {
            gains.entry(seed).or_default().push(b - a);
        }
        by_seed(&gains)
    }
}

/// Regimes, tasks and arms, in the order of the tables.
fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static Arm)> {
    REGIMES.into_iter().flat_map(|r| {
        TASKS.iter().flat_map(move |t| ARMS.iter().map(move |a| (r.name(), t.name, a)))
    })
}

/// One row for each reported run, model, split and epoch (last, best on the validation split).
fn rows(runs: &Runs) -> Vec<Value> {
    let mut rows = Vec::new();
    for (regime, task, arm) in kinds() {
        let base = runs.reported(regime, task, "independent", arm.name);
        for (seed, run) in runs.seeds(regime, task, arm.name) {
            let base = base.iter().find(|(s, _)| *s == seed).map(|(_, run)| *run);
            rows_of(run, base, &mut rows);
        }
    }
    rows
}

fn rows_of(run: &Value, base: Option<&Value>, rows: &mut Vec<Value>) {
    for model in MODELS {
        let Some(curve) = Curve::of(run, model) else { continue };
        let target = base.and_then(|b| Curve::of(b, model)).map(|c| c.last().0);
        let reached = target.and_then(|t| curve.reached(t));
        for (at, (held_in, eval)) in [("last", curve.last()), ("best", curve.best())] {
            for (split, value) in [("held_in", Some(held_in)), ("eval", eval)] {
                let Some(value) = value else { continue };
                rows.push(json!({
                    "regime": run["regime"], "task": run["task"], "arm": run["arm"],
                    "model": model, "seed": run["seed"], "split": split, "epoch": at,
                    "metric": run["metric"], "value": value, "examples": run["samples"],
                    "learning_rate": run["learning_rate"], "epochs": run["epochs"],
                    "steps_to_target": reached.map(|r| r.0),
                    "seconds_to_target": reached.map(|r| r.1),
                    "commit": run["commit"], "command": run["command"],
                }));
            }
        }
    }
}

/// A mean, its interval where there is one, and the number of seeds.
pub fn score(mean: Mean) -> String {
    let half = if mean.half.is_finite() { format!(" ± {:.2}", mean.half) } else { String::new() };
    format!("{:.2}{half} ({})", mean.mean.abs(), mean.n)
}

pub fn shown(mean: Mean) -> String {
    format!("{}{}", sign(mean.mean), score(mean))
}

fn sign(x: f64) -> &'static str {
    if x >= 0.0 { "+" } else { "−" }
}

/// A number with its sign and so many decimals.
fn signed(x: f64, decimals: usize) -> String {
    format!("{}{:.decimals$}", sign(x), x.abs())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A mean of each seed's mean.
fn by_seed(values: &BTreeMap<u64, Vec<f64>>) -> Mean {
    Mean::of(&values.values().filter_map(|v| mean(v.iter().copied())).collect::<Vec<_>>())
}

/// Gains of an arm by regime and task: one line for each task, and one for their mean.
fn gains(runs: &Runs, regime: &str, arm: &str, page: &mut String) {
    // Of each seed the gains of all tasks and models.
    let mut all: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut worst = f64::INFINITY;
    let mut cells = String::new();
    for task in &TASKS {
        let cell = (regime, task.name, arm);
        let mut models = String::new();
        for model in MODELS {
            let pairs = runs.pairs(cell, model, Epoch::Last);
            let values: Vec<f64> = pairs.iter().map(|(_, a, b)| b - a).collect();
            if let Some(gain) = mean(values.iter().copied()) {
                worst = worst.min(gain);
            }
            let text = if values.is_empty() { "–".into() } else { shown(Mean::of(&values)) };
            let _ = write!(models, " {text} |");
            pairs.iter().for_each(|(seed, a, b)| all.entry(*seed).or_default().push(b - a));
        }
        let gain = runs.gain(cell, Epoch::Last);
        if gain.n == 0 {
            continue;
        }
        let interval = runs.interval(regime, task.name, arm);
        let interval = interval.map_or("–".into(), |(low, high)| {
            format!("{} to {}", signed(low, 2), signed(high, 2))
        });
        let best = shown(runs.gain(cell, Epoch::Best));
        let _ = writeln!(
            cells,
            "| {regime} | {} | {arm} |{models} {} | {interval} | {best} |",
            task.name,
            shown(gain)
        );
    }
    if all.is_empty() {
        return;
    }
    page.push_str(&cells);
    let (text, worst) = (shown(by_seed(&all)), signed(worst, 2));
    let _ = writeln!(page, "| {regime} | **mean** | {arm} | | | least {worst} | **{text}** | | |");
}

/// Steps and seconds to independent training's last validation score, as parts of its own.
fn speed(runs: &Runs, regime: &str, arm: &Arm, page: &mut String) {
    // Of each seed, over tasks and models.
    let [mut steps, mut seconds] = [(); 2].map(|()| BTreeMap::<u64, Vec<f64>>::new());
    let (mut n_reached, mut n) = (0, 0);
    for task in &TASKS {
        for (seed, base_run, run) in runs.paired(regime, task.name, arm.name) {
            for model in MODELS {
                let (Some(base), Some(curve)) = (Curve::of(base_run, model), Curve::of(run, model))
                else {
                    continue;
                };
                let target = base.last().0;
                let Some(first) = base.reached(target) else { continue };
                n += 1;
                let Some(own) = curve.reached(target) else { continue };
                n_reached += 1;
                steps.entry(seed).or_default().push(own.0 as f64 / first.0 as f64);
                let counted = base.has_processor_seconds && curve.has_processor_seconds;
                if counted && base_run["processor"] == run["processor"] {
                    seconds.entry(seed).or_default().push(own.1 / first.1);
                }
            }
        }
    }
    let steps = by_seed(&steps);
    if steps.n == 0 {
        return;
    }
    // A backward pass counts as two forward passes.
    let compute = steps.mean * (3.0 + arm.further_passes) / 3.0;
    let change = 100.0 * (steps.mean - 1.0);
    let half = if steps.n > 1 { format!(" ± {:.0}", 100.0 * steps.half) } else { String::new() };
    let seconds = match by_seed(&seconds) {
        Mean { n: 0, .. } => "–".into(),
        found => format!("{:.2} ({})", found.mean, found.n),
    };
    let _ = writeln!(
        page,
        "| {regime} | {} | {}{half}% | {compute:.2} | {seconds} | {n_reached} of {n} |",
        arm.name,
        signed(change, 0)
    );
}

/// What the mean prediction of a run's three models scores, beside the mean of their scores.
fn ceilings(runs: &Runs, page: &mut String) {
    page.push_str("\n### Together\n\n");
    page.push_str(
        "Accuracy of the mean of the three models' predictions less the mean of their accuracies, \
         in points: mean over seeds ± 95% (seeds). Of independent training it is what models of the \
         same examples can teach each other at once.\n\n",
    );
    page.push_str("| regime | task | arm | gain |\n|---|---|---|---|\n");
    for (regime, task, arm) in kinds() {
        let gain = |(_, run): (u64, &Value)| {
            let together = runs.1.get(run["cell"].as_str()?)?["mean_prediction"].as_f64()?;
            let last = |model: &&str| Curve::of(run, model)?.last().1;
            let own = mean(MODELS.iter().filter_map(last))?;
            Some(100.0 * (together - own))
        };
        let all = runs.seeds(regime, task, arm.name);
        let gains: Vec<f64> = all.into_iter().filter_map(gain).collect();
        if !gains.is_empty() {
            let gain = shown(Mean::of(&gains));
            let _ = writeln!(page, "| {regime} | {task} | {} | {gain} |", arm.name);
        }
    }
}

/// Held-in and evaluation scores of each setting, of what was run at all rates.
fn settings(runs: &Runs, page: &mut String) {
    let mut lines = String::new();
    for (regime, task, arm) in kinds() {
        let name = arm.name;
        for how in Setting::all().filter(|s| runs.is_tuned(regime, task, name, s.is_long)) {
            let all = runs.at(regime, task, name, how);
            let mean = |split: fn(&Curve) -> Option<f64>| {
                let own = |(_, run): &(u64, &Value)| {
                    let of = |m| Some(100.0 * split(&Curve::of(run, m)?)?);
                    mean(MODELS.into_iter().filter_map(of))
                };
                score(Mean::of(&all.iter().filter_map(own).collect::<Vec<_>>()))
            };
            let (held_in, eval) = (mean(|c| Some(c.last().0)), mean(|c| c.last().1));
            let is_reported = runs.setting((regime, task, name), name) == how;
            let mark = if is_reported { "yes" } else { "" };
            let epochs = all.first().map_or(Value::Null, |(_, run)| run["epochs"].clone());
            let rate = how.rate;
            let _ = writeln!(
                lines,
                "| {regime} | {task} | {name} | {rate:e} | {epochs} | {held_in} | {eval} | {mark} |"
            );
        }
    }
    if lines.is_empty() {
        return;
    }
    page.push_str("\n### Learning rates and epochs\n\n");
    page.push_str(
        "Mean score of the three models, last epoch, in percent: mean over seeds ± 95% (seeds). An arm \
         is reported with the number of epochs with which independent training has the best validation \
         scores, and at the rate that has the best ones of its own, everywhere on this page; an arm \
         that was run at the first rate alone stands beside independent training at that rate with the \
         first number of epochs.\n\n",
    );
    page.push_str("| regime | task | arm | rate | epochs | validation | evaluation | reported |\n");
    page.push_str("|---|---|---|---|---|---|---|---|\n");
    page.push_str(&lines);
}

/// What cells that were run again had before, beside what they have now.
fn again(runs: &Runs, earlier: &Runs, page: &mut String) {
    let score = |run: &Value| {
        let last = |model: &&str| Curve::of(run, model)?.last().1;
        mean(MODELS.iter().filter_map(last)).map(|x| 100.0 * x)
    };
    let mut lines = String::new();
    for (regime, task, arm) in kinds() {
        for how in Setting::all() {
            let now = runs.at(regime, task, arm.name, how);
            let pair = |(seed, old): (u64, &Value)| {
                let (_, new) = now.iter().find(|(s, _)| *s == seed)?;
                Some((score(old)?, score(new)?))
            };
            let old = earlier.at(regime, task, arm.name, how);
            let pairs: Vec<(f64, f64)> = old.into_iter().filter_map(pair).collect();
            if pairs.is_empty() {
                continue;
            }
            let of = |f: fn(&(f64, f64)) -> f64| Mean::of(&pairs.iter().map(f).collect::<Vec<_>>());
            let (old, new) = (of(|p| p.0).mean, of(|p| p.1).mean);
            let change = shown(of(|p| p.1 - p.0));
            let (arm, rate) = (arm.name, how.rate);
            let long = if how.is_long { LONG } else { "" };
            let _ = writeln!(
                lines,
                "| {regime} | {task} | {arm} | {rate:e}{long} | {old:.2} | {new:.2} | {change} |"
            );
        }
    }
    if lines.is_empty() {
        return;
    }
    page.push_str("\n### Run again\n\n");
    page.push_str(
        "Cells that were run again by a later program, which rounds otherwise; the runs of before are in \
         [results/earlier.jsonl](results/earlier.jsonl) and count nowhere else. Mean score of the three \
         models, evaluation split, last epoch, in percent, and the change, paired by seed ± 95% (seeds). \
         A change of 0 is of last scores; earlier ones may differ.\n\n",
    );
    page.push_str(
        "| regime | task | arm | rate | before | now | change |\n|---|---|---|---|---|---|---|\n",
    );
    page.push_str(&lines);
}

fn tables(runs: &Runs, earlier: &Runs) -> String {
    let mut page = String::new();
    page.push_str("\n### Scores of independent training\n\n");
    page.push_str("Evaluation split, last epoch, in percent: mean over seeds ± 95% (seeds).\n\n");
    page.push_str(
        "| regime | task | metric | bert | gpt2 | roberta |\n|---|---|---|---|---|---|\n",
    );
    for regime in REGIMES {
        for task in &TASKS {
            let mut line = String::new();
            for model in MODELS {
                let last = |run: &Value| Curve::of(run, model)?.last().1.map(|x| 100.0 * x);
                let all = runs.seeds(regime.name(), task.name, "independent");
                let all: Vec<f64> = all.into_iter().filter_map(|(_, run)| last(run)).collect();
                if !all.is_empty() {
                    let _ = write!(line, " {} |", score(Mean::of(&all)));
                }
            }
            if !line.is_empty() {
                let metric = task.kind.metric();
                let _ = writeln!(page, "| {} | {} | {metric} |{line}", regime.name(), task.name);
            }
        }
    }
    page.push_str("\n### Gains over independent training\n\n");
    page.push_str(
        "Points of the metric, evaluation split, last epoch, paired by seed: mean ± 95% (seeds). \
         Over examples: the 95% interval of the mean gain when examples are drawn anew (bootstrap), \
         of the seeds whose models were kept. Best epoch: the mean gain where each model of either arm \
         counts with the epoch with the best validation score, as with early stopping.\n\n",
    );
    page.push_str(
        "| regime | task | arm | bert | gpt2 | roberta | mean | over examples | mean, best epoch |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for regime in REGIMES {
        for arm in ARMS.iter().filter(|a| a.name != "independent") {
            gains(runs, regime.name(), arm.name, &mut page);
        }
    }
    settings(runs, &mut page);
    ceilings(runs, &mut page);
    page.push_str("\n### To independent training's last validation score\n\n");
    page.push_str(
        "Steps until a model's validation score is what independent training of the same seed ends with, \
         beside the steps until independent training first has that score, which is before its end: \
         mean over tasks and models by seed ± 95% over seeds, of the models that reached it. Compute: the \
         same in passes, where a backward pass counts as two forward passes. Processor time (seeds): of \
         pairs that ran on one kind of processor and counted it, beside other work.\n\n",
    );
    page.push_str("| regime | arm | steps | compute | processor time | reached |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for regime in REGIMES {
        for arm in ARMS.iter().filter(|a| a.name != "independent") {
            speed(runs, regime.name(), arm, &mut page);
        }
    }
    again(runs, earlier, &mut page);
    page.push_str("\n### Arms\n\n| arm | what it is |\n|---|---|\n");
    for arm in &ARMS {
        let options =
            if arm.options.is_empty() { String::new() } else { format!(": `{}`", arm.options) };
        let none = if runs.0.keys().any(|k| k.2 == arm.name) { "" } else { "; not run" };
        let _ = writeln!(page, "| {} | {}{options}{none} |", arm.name, arm.what);
    }
    page
}

/// The table of the README: each cell that five seeds have.
fn summary(runs: &Runs) -> String {
    const SEEDS: usize = 5;
    let mut page = String::from(
        "| models and labels | task | independent, mean of three models | joint (default preset), mean \
         gain | least gain of a model | mean gain, best epochs |\n|---|---|---|---|---|---|\n",
    );
    for regime in REGIMES {
        for task in &TASKS {
            let cell = (regime.name(), task.name, "default");
            let pairs = MODELS.map(|m| runs.pairs(cell, m, Epoch::Last));
            if pairs[0].len() < SEEDS {
                continue;
            }
            let independent = mean(pairs.iter().flatten().map(|(_, a, _)| *a)).unwrap_or(f64::NAN);
            let least = pairs.iter().filter_map(|p| mean(p.iter().map(|(_, a, b)| b - a)));
            let least = signed(least.fold(f64::INFINITY, f64::min), 1);
            let _ = writeln!(
                page,
                "| {} | {}, {} | {independent:.1} | {} ({} seeds) | {least} | {} |",
                regime.what(),
                task.name,
                task.kind.metric().replace('_', " "),
                brief(runs.gain(cell, Epoch::Last)),
                pairs[0].len(),
                brief(runs.gain(cell, Epoch::Best))
            );
        }
    }
    page
}

fn brief(mean: Mean) -> String {
    format!("{} ± {:.1}", signed(mean.mean, 1), mean.half)
}

/// Replaces what is between two marks of a file.
fn put_between(path: &Path, text: &str, [begin, end]: [&str; 2], new: &str) -> Result<()> {
    let what = path.display();
    let (before, rest) = text.split_once(begin).ok_or(format!("{what} has no mark {begin}"))?;
    let (_, after) = rest.split_once(end).ok_or(format!("{what} has no mark {end}"))?;
    put(path, &format!("{before}{begin}\n{new}\n{end}{after}"))
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes results.json, and the tables into results.md and the README beside its folder, which have
/// the words around them.
pub fn write(settings: &Settings) -> Result<()> {
    let runs = Runs::of(lines::read(&settings.runs)?, lines::read(&examples::file_of(settings))?);
    let earlier = Runs::of(lines::read(&run::earlier_of(settings))?, Vec::new());
    let rows = rows(&runs);
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::create_dir_all(&settings.out).map_err(|e| format!("{}: {e}", settings.out.display()))?;
    put(&settings.out.join("results.json"), &format!("[\n{}\n]\n", lines.join(",\n")))?;
    let path = settings.out.join("results.md");
    let old =
        fs::read_to_string(&path).unwrap_or_else(|_| format!("# Results\n\n{BEGIN}\n{END}\n"));
    put_between(&path, &old, [BEGIN, END], &tables(&runs, &earlier))?;
    let readme = settings.out.join("../README.md");
    if let Ok(old) = fs::read_to_string(&readme)
        && old.contains(SUMMARY[0])
    {
        put_between(&readme, &old, SUMMARY, &summary(&runs))?;
    }
    let n: usize = runs.0.values().map(Vec::len).sum();
    println!("{n} runs, {} rows", rows.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cell: &str, arm: &str, seed: u64, rate: f64, held_in: f64, eval: f64) -> Value {
        let model = json!({"score": held_in, "test_score": eval});
        let record = json!({
            "epoch": 1, "step": 10, "seconds": 1.0,
            "bert": model, "gpt2": model, "roberta": model,
        });
        json!({
            "cell": cell, "regime": "fresh", "task": "trec", "arm": arm, "seed": seed,
            "learning_rate": rate, "epochs": 4, "metric": "accuracy", "records": [record],
        })
    }

    fn none() -> Runs {
        Runs::of(Vec::new(), Vec::new())
    }

    #[test]
    fn what_was_run_again_stands_beside_what_was_before() {
        let before = Runs::of(
            (1..=2).map(|s| run("a/a/a/1", "default", s, RATES[1], 0.5, 0.5)).collect(),
            Vec::new(),
        );
        let mut page = String::new();
        again(&none(), &before, &mut page);
        assert_eq!(page, "");
        let scores = [(1, 0.625), (2, 0.875), (3, 0.0)];
        let now = scores.map(|(s, own)| run("a/a/a/1", "default", s, RATES[1], 0.5, own));
        again(&Runs::of(now.into(), Vec::new()), &before, &mut page);
        let line = "| fresh | trec | default | 1e-3 | 50.00 | 75.00 | +25.00 ± 158.82 (2) |\n";
        assert!(page.ends_with(line) && page.matches("fresh").count() == 1, "{page}");
    }

    /// Five seeds of two arms whose models score `base` and `own` on the evaluation split.
    fn runs(base: f64, own: f64) -> Runs {
        let (mut runs, mut examples) = (Vec::new(), Vec::new());
        for seed in 1..=5 {
            for (arm, score, right) in [("independent", base, "1100"), ("default", own, "1110")] {
                let cell = format!("fresh/trec/{arm}/{seed}");
                runs.push(run(&cell, arm, seed, RATES[0], score, score));
                examples.push(json!({
                    "cell": cell, "mean_prediction": score + 0.02,
                    "bert": right, "gpt2": right, "roberta": right,
                }));
            }
        }
        Runs::of(runs, examples)
    }

    #[test]
    fn each_arm_is_reported_at_the_rate_that_is_best_held_in() {
        let mut lines = Vec::new();
        for seed in 1..=2 {
            // Evaluation scores would choose the other rate.
            for (arm, rate, held_in, eval) in [
                ("independent", RATES[0], 0.5, 0.7),
                ("independent", RATES[1], 0.6, 0.4),
                ("default", RATES[0], 0.8, 0.5),
                ("default", RATES[1], 0.7, 0.9),
                ("paper", RATES[0], 0.5, 0.6),
            ] {
                lines.push(run(
                    &format!("fresh/trec/{arm}@{rate}/{seed}"),
                    arm,
                    seed,
                    rate,
                    held_in,
                    eval,
                ));
            }
        }
        let gain = |runs: &Runs, arm| {
            let pairs = runs.pairs(("fresh", "trec", arm), "bert", Epoch::Last);
            mean(pairs.iter().map(|(_, a, b)| (b - a).round()))
        };
        let all = Runs::of(lines.clone(), Vec::new());
        assert_eq!(gain(&all, "default"), Some(10.0));
        // Run at the first rate alone, so beside independent training at that rate.
        assert_eq!(gain(&all, "paper"), Some(-10.0));
        let page = tables(&all, &none());
        assert!(
            page.contains("| default | 5e-4 | 4 | 80.00 ± 0.00 (2) | 50.00 ± 0.00 (2) | yes |"),
            "{page}"
        );
        let rates: Vec<_> =
            rows(&all).iter().map(|r| r["learning_rate"].as_f64().unwrap()).collect();
        assert_eq!(rates.iter().filter(|r| **r == RATES[1]).count(), 2 * 3 * 2 * 2);
        assert_eq!(rates.len(), 3 * 2 * 3 * 2 * 2);
        // With a seed less at the second rate, nothing is chosen yet.
        lines.retain(|r| r["arm"] != "default" || r["seed"] != 2 || Setting::of(r) == FIRST);
        assert_eq!(gain(&Runs::of(lines, Vec::new()), "default"), Some(-20.0));
    }

    #[test]
    fn arms_are_reported_with_the_epochs_that_are_best_for_independent_training() {
        let mut lines = Vec::new();
        for (arm, long, scores) in [
            ("independent", "", [(0.5, 0.1), (0.6, 0.2)]),
            ("independent", LONG, [(0.65, 0.3), (0.55, 0.9)]),
            // Better with fewer epochs, which independent training is not.
            ("default", "", [(0.8, 0.5), (0.7, 0.5)]),
            ("default", LONG, [(0.6, 0.6), (0.7, 0.7)]),
        ] {
            for (rate, (held_in, eval)) in RATES.into_iter().zip(scores) {
                let cell = format!("fresh/trec/{arm}@{rate:e}{long}/1");
                lines.push(run(&cell, arm, 1, rate, held_in, eval));
            }
        }
        let gain = |lines: &[Value]| {
            let pairs = Runs::of(lines.to_vec(), Vec::new())
                .gain(("fresh", "trec", "default"), Epoch::Last);
            pairs.mean.round()
        };
        assert_eq!(gain(&lines), 40.0);
        // Not at all rates with more epochs: with the fewer ones.
        assert_eq!(gain(&lines[..7]), 30.0);
    }

    #[test]
    fn the_best_epoch_is_chosen_held_in() {
        let of = |arm: &str, epochs: [(f64, f64); 2]| {
            let cell = format!("fresh/trec/{arm}/1");
            let runs = epochs.map(|(held_in, eval)| run(&cell, arm, 1, RATES[0], held_in, eval));
            let records = runs.each_ref().map(|r| r["records"][0].clone());
            let mut all = runs[0].clone();
            all["records"] = json!(records);
            all
        };
        let base = of("independent", [(0.7, 0.5), (0.6, 0.5)]);
        let runs = Runs::of(vec![base, of("default", [(0.9, 0.8), (0.5, 0.6)])], Vec::new());
        let gain = |epoch| runs.gain(("fresh", "trec", "default"), epoch).mean.round();
        assert_eq!([gain(Epoch::Last), gain(Epoch::Best)], [10.0, 30.0]);
        // Its processor time was not counted.
        let page = tables(&runs, &none());
        assert!(page.contains("| fresh | default | +0% | 1.00 | – | 3 of 3 |"), "{page}");
        assert!(page.contains("| +10.00 (1) | – | +30.00 (1) |"), "{page}");
    }

    #[test]
    fn gains_are_paired_and_have_both_intervals() {
        let runs = runs(0.5, 0.75);
        let text = summary(&runs);
        let line = "| three fresh models | trec, accuracy | 50.0 | +25.0 ± 0.0 (5 seeds) | +25.0 | \
             +25.0 ± 0.0 |\n";
        assert!(text.ends_with(line) && text.lines().count() == 3, "{text}");
        // One of four examples is gained, which a draw may have four times or never.
        let (low, high) = runs.interval("fresh", "trec", "default").unwrap();
        assert!(low == 0.0 && (50.0..=100.0).contains(&high), "{low} {high}");
        let page = tables(&runs, &none());
        assert!(page.contains("| fresh | trec | independent | +2.00 ± 0.00 (5) |"), "{page}");
        assert!(page.contains("+25.00 ± 0.00 (5) | +0.00 to +"), "{page}");
        assert_eq!(rows(&runs).len(), 2 * 5 * 3 * 2 * 2);
    }
}

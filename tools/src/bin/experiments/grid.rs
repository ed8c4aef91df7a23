//! What is trained: regimes, tasks, arms and seeds, and the settings of each.

use crate::Settings;
use crate::arms::{ARMS, Arm};

/// What the models of a run begin with, and what the labels are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Three fresh models of one size.
    Fresh,
    /// A pretrained BERT beside a fresh GPT-2 and RoBERTa, on its vocabulary.
    OnePretrained,
    /// 1,000 labelled examples; the rest of the training examples have no labels.
    FewLabels,
    /// A fifth of the labels is wrong.
    NoisyLabels,
}

pub const REGIMES: [Regime; 4] =
    [Regime::Fresh, Regime::OnePretrained, Regime::FewLabels, Regime::NoisyLabels];

impl Regime {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::OnePretrained => "one_pretrained",
            Self::FewLabels => "few_labels",
            Self::NoisyLabels => "noisy_labels",
        }
    }
}

impl Regime {
    /// In words, for a table.
    pub fn what(self) -> &'static str {
        match self {
            Self::Fresh => "three fresh models",
            Self::OnePretrained => "a pretrained BERT, two fresh models",
            Self::FewLabels => "fresh, 1,000 labels (wikigold 320), the rest without",
            Self::NoisyLabels => "fresh, a fifth of the labels wrong",
        }
    }
}

/// The kind of a task, as `joint_train --task` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Classification,
    Entities,
    Questions,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Entities => "entities",
            Self::Questions => "questions",
        }
    }

    pub fn metric(self) -> &'static str {
        match self {
            Self::Classification => "accuracy",
            Self::Entities => "entity_f1",
            Self::Questions => "answer_f1",
        }
    }
}

/// A data set. Its training file is parted into what is trained on and the validation split;
/// where there is no evaluation file, a further part of the training file is the evaluation split.
pub struct Task {
    pub name: &'static str,
    pub kind: Kind,
    /// Files in the folder of the data.
    pub train: &'static str,
    pub eval: Option<&'static str>,
    pub max_length: usize,
}

pub const TASKS: [Task; 6] = [
    Task {
        name: "sst2",
        kind: Kind::Classification,
        train: "sst2-sentences-train.tsv.gz",
        eval: Some("sst2-sentences-dev.tsv.gz"),
        max_length: 64,
    },
    Task {
        name: "trec",
        kind: Kind::Classification,
        train: "trec-train.tsv.gz",
        eval: None,
        max_length: 48,
    },
    // scripts/fetch_data.sh brings these.
    Task {
        name: "films",
        kind: Kind::Classification,
        train: "train.tsv",
        eval: Some("eval.tsv"),
        max_length: 64,
    },
    Task {
        name: "wikigold",
        kind: Kind::Entities,
        train: "wikigold.conll.gz",
        eval: None,
        max_length: 96,
    },
    Task {
        name: "wnut17",
        kind: Kind::Entities,
        train: "wnut17-train.conll.gz",
        eval: Some("wnut17-dev.conll.gz"),
        max_length: 64,
    },
    Task {
        name: "squad",
        kind: Kind::Questions,
        train: "squad-train-sample.jsonl.gz",
        eval: Some("xquad.en.json.gz"),
        max_length: 256,
    },
];

/// One run.
#[derive(Clone)]
pub struct Cell {
    pub regime: Regime,
    pub task: &'static Task,
    pub arm: &'static Arm,
    pub seed: u64,
    pub schedule: Schedule,
    /// Chooses settings: no evaluation split, and the schedule is part of the name.
    pub is_tuning: bool,
}

/// What tuning chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub learning_rate: f64,
    pub epochs: u64,
}

impl Cell {
    /// The cell's name in the file of runs and for `--only`.
    pub fn name(&self) -> String {
        let Self { regime, task, arm, seed, schedule, .. } = self;
        let rate = schedule.learning_rate;
        let is_long = schedule.epochs > self::schedule(*regime, task, arm).epochs;
        let (regime, task, arm) = (regime.name(), task.name, arm.name);
        let long = if is_long { LONG } else { "" };
        if self.is_tuning {
            format!("{regime}/{task}/{arm}/{seed}/{rate:e}/{}", schedule.epochs)
        } else if rate == RATES[0] && !is_long {
            format!("{regime}/{task}/{arm}/{seed}")
        } else {
            format!("{regime}/{task}/{arm}@{rate:e}{long}/{seed}")
        }
    }
}

/// The learning rates that each of the compared arms is run with, and of which the report takes the
/// one with the best validation scores; the other arms have the first.
pub const RATES: [f64; 2] = [5e-4, 1e-3];

/// Behind the rate in the name of a cell with twice the epochs.
pub const LONG: &str = "x2";

/// Where the compared arms are run with twice the epochs too: where independent training had better
/// validation scores with them at its better rate, by the tuning's seeds.
fn is_also_long(regime: Regime, task: &Task) -> bool {
    regime == Regime::Fresh && task.name == "trec"
}

/// Rates and epochs: see docs/results.md. With unlabelled examples an epoch is a walk over those, in
/// which labelled ones are seen several times.
fn schedule(regime: Regime, task: &Task, arm: &Arm) -> Schedule {
    let epochs: u64 = match (regime, task.kind) {
        // Of few sentences: so many that labelled ones are seen as often as without unlabelled ones.
        (Regime::FewLabels, Kind::Entities) if arm.is_semi_supervised => 5,
        (Regime::FewLabels, _) if arm.is_semi_supervised => 2,
        (Regime::FewLabels, Kind::Questions) => 10,
        (Regime::FewLabels, _) => 15,
        (_, Kind::Questions) => 4,
        (Regime::OnePretrained, _) => 3,
        (_, Kind::Classification) => 4,
        (_, Kind::Entities) => 12,
    };
    let epochs = if arm.is_short { (3 * epochs).div_ceil(4).min(epochs - 1) } else { epochs };
    Schedule { learning_rate: RATES[0], epochs }
}

/// The grid in the order in which it is run: what is compared first, at each rate, then the other arms.
pub fn cells(settings: &Settings) -> Vec<Cell> {
    let mut cells = Vec::new();
    let seeds = settings.seeds.unwrap_or(if settings.quick { 1 } else { 5 });
    let tasks = TASKS.iter().filter(|t| !settings.quick || t.name == "films");
    let arms: Vec<&Arm> = ARMS.iter().filter(|a| a.is_compared || !settings.quick).collect();
    let compared = RATES.iter().take(if settings.quick { 1 } else { RATES.len() });
    let lengths: &[u64] = if settings.quick { &[1] } else { &[1, 2] };
    let compared =
        lengths.iter().flat_map(|&length| compared.clone().map(move |&rate| (true, rate, length)));
    for (is_compared, learning_rate, length) in compared.chain([(false, RATES[0], 1)]) {
        for seed in 1..=seeds {
            for task in tasks.clone() {
                for regime in REGIMES {
                    for &arm in arms.iter().filter(|a| a.is_compared == is_compared) {
                        if !arm.fits(regime, task) || length > 1 && !is_also_long(regime, task) {
                            continue;
                        }
                        let epochs = length * schedule(regime, task, arm).epochs;
                        let mut schedule = Schedule { learning_rate, epochs };
                        if settings.quick {
                            schedule.epochs = 1;
                        }
                        cells.push(Cell { regime, task, arm, seed, schedule, is_tuning: false });
                    }
                }
            }
        }
    }
    cells
}

/// The cells that choose settings: the same grid for each arm, other seeds than the runs'.
pub fn tuning(settings: &Settings) -> Vec<Cell> {
    let mut cells = Vec::new();
    for seed in 101..101 + settings.seeds.unwrap_or(2) {
        for task in &TASKS {
            for regime in REGIMES {
                for arm in ARMS.iter().filter(|a| a.fits(regime, task)) {
                    let epochs = schedule(regime, task, arm).epochs;
                    for learning_rate in RATES {
                        for epochs in [epochs, 2 * epochs] {
                            let schedule = Schedule { learning_rate, epochs };
                            cells.push(Cell { regime, task, arm, seed, schedule, is_tuning: true });
                        }
                    }
                }
            }
        }
    }
    cells
}

/// Whether a name fits a pattern with `*`, as a whole or in its beginning.
pub fn fits(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name.starts_with(pattern) };
    name.strip_prefix(first).is_some_and(|name| {
        rest.is_empty()
            || (0..=name.len()).any(|i| name.is_char_boundary(i) && fits(&name[i..], rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_names_of_their_own() {
        let settings = Settings { seeds: Some(2), ..Settings::default() };
        let mut names: Vec<String> = cells(&settings).iter().map(Cell::name).collect();
        for (name, epochs) in [("fresh/trec/default/1", 4), ("fresh/trec/default@1e-3x2/2", 8)] {
            let cell = cells(&settings).into_iter().find(|c| c.name() == name).unwrap();
            assert_eq!(cell.schedule.epochs, epochs);
        }
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
    }

    #[test]
    fn short_arms_have_fewer_epochs_wherever_they_run() {
        let arm = |name| ARMS.iter().find(|a| a.name == name).unwrap();
        for (short, whole) in [
            ("independent_short", "independent"),
            ("default_short", "default"),
            ("default_gated_short", "default_gated"),
            ("default_mean_teacher_short", "default_mean_teacher"),
            ("default_online_short", "default_online"),
        ] {
            let (short, whole) = (arm(short), arm(whole));
            let mut n_epochs = Vec::new();
            for regime in REGIMES {
                for task in TASKS.iter().filter(|t| short.fits(regime, t)) {
                    let [fewer, all] = [short, whole].map(|a| schedule(regime, task, a).epochs);
                    assert!(fewer > 0 && fewer < all, "{}/{}", regime.name(), task.name);
                    n_epochs.push((fewer, all));
                }
            }
            n_epochs.sort_unstable();
            n_epochs.dedup();
            assert_eq!(n_epochs, [(2, 3), (3, 4), (9, 12)]);
        }
    }
}

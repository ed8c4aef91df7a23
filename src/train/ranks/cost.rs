//! What a rank sends, told beforehand: the bytes that the communicator will count.

use serde_json::{Value, json};

use super::Ranks;
use super::exchange::{N_KINDS, PER_MODEL};
use super::parts::bytes_of_exchange;
use super::wire::GradientDtype;
use crate::optim::{Distribution, Optimizer};
use crate::train::trainer::Trainer;

/// Bytes that each rank sends; where ranks send differently much, their mean.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// In a pass of one or all models, but for predictions; with sums that overlap, of all models.
    pass: f64,
    /// In a step that shares gradients and does not synchronise.
    step: f64,
    /// What a synchronisation adds.
    sync: f64,
    /// For each probability that a model predicts for others.
    probability: f64,
    /// In a meeting after local steps.
    meeting: f64,
}

impl Trainer {
    /// What this rank sends, as text; empty without other ranks.
    pub(in crate::train) fn ranks_text(&self) -> String {
        let Some(ranks) = &self.ranks else { return String::new() };
        let (rank, n, cost) = (ranks.rank(), ranks.size(), self.cost(ranks));
        let group = match &ranks.replicas {
            Some(_) => format!("group {} of {}, ", ranks.group(), ranks.n_groups()),
            None => String::new(),
        };
        let mut text = format!("ranks: {rank} of {n}, {group}{}", self.way(ranks));
        if let Some(owners) = &ranks.owners {
            let place = |(m, r): (&crate::train::model::Model, &usize)| format!("{} {r}", m.name);
            let places: Vec<String> = self.models().iter().zip(owners).map(place).collect();
            text.push_str(&format!(" ({})", places.join(", ")));
        }
        let bytes = [("pass", cost.pass), ("step", cost.step)];
        let more = [("synchronisation", cost.sync), ("meeting", cost.meeting)];
        let told = bytes.iter().chain(more.iter().filter(|(_, b)| *b > 0.0));
        let told: Vec<String> = told.map(|(what, b)| format!("{b:.0} in a {what}")).collect();
        text.push_str(&format!("; bytes that a rank sends: {}", told.join(", ")));
        if cost.probability > 0.0 {
            text.push_str(&format!(
                ", and in a pass {:.2} for each probability that a model predicts",
                cost.probability
            ));
        }
        text.push('\n');
        text
    }

    /// The same as JSON; none without other ranks.
    pub(in crate::train) fn ranks_json(&self) -> Option<Value> {
        let ranks = self.ranks.as_ref()?;
        let cost = self.cost(ranks);
        let place = |owners: &Vec<usize>| {
            let named = self.models().iter().map(|m| m.name.clone()).zip(owners);
            Value::Object(named.map(|(name, &rank)| (name, rank.into())).collect())
        };
        Some(json!({
            "rank": ranks.rank(),
            "n_ranks": ranks.size(),
            "group": ranks.group(),
            "n_groups": ranks.n_groups(),
            "way": self.way(ranks),
            "placement": ranks.owners.as_ref().map(place),
            "pass_bytes": cost.pass,
            "probability_bytes": cost.probability,
            "step_bytes": cost.step,
            "sync_bytes": cost.sync,
            "meeting_bytes": cost.meeting,
        }))
    }

    fn way(&self, ranks: &Ranks) -> &'static str {
        match self.optimizer().distribution() {
            _ if !ranks.is_joint() => "local steps",
            Distribution::Models => "models on different ranks",
            Distribution::State => "replicas with sharded state",
            Distribution::None if ranks.sums_early() => "replicas, sums overlap with passes",
            Distribution::None => "replicas",
        }
    }

    fn cost(&self, ranks: &Ranks) -> Cost {
        let (n, optimizer) = (ranks.size(), self.optimizer());
        let numbers = 8 * (N_KINDS + ranks.n_models + 2 + PER_MODEL * ranks.n_models);
        let small = ring(numbers, n) + (numbers * (ranks.n_groups() - 1)) as f64;
        match optimizer.distribution() {
            _ if !ranks.is_joint() => {
                let elements: usize = optimizer.n_owned_elements(1).iter().sum();
                Cost { meeting: ring(4 * elements, n), ..Cost::default() }
            }
            Distribution::Models => self.cost_of_models(ranks, small),
            Distribution::None | Distribution::State => {
                let sharded = optimizer.distribution() == Distribution::State;
                let owned = optimizer.n_owned_elements(if sharded { n } else { 1 });
                let sums = bytes_of_sums(ranks, owned.iter().sum(), n);
                let (mut pass, mut step) = (small, 2.0 * small);
                if ranks.sums_early() {
                    let n_trained = self.models().iter().filter(|m| !m.only_teaches()).count();
                    pass += n_trained as f64 * small + sums;
                } else {
                    step += sums;
                }
                if sharded {
                    step += small + bytes_of_exchange(&owned, 4);
                }
                Cost { pass, step, ..Cost::default() }
            }
        }
    }

    fn cost_of_models(&self, ranks: &Ranks, small: f64) -> Cost {
        let (n, optimizer): (usize, &Optimizer) = (ranks.size(), self.optimizer());
        let shared = optimizer.n_shared_elements(n, true);
        let (sums, words) = optimizer.n_exchanged_numbers(optimizer.inspects_products());
        let mut step = 5.0 * small + ring(8 * sums, n) + ring(8 * words, n);
        if ranks.replicas.is_some() {
            let all: usize = optimizer.n_owned_elements(n).iter().sum();
            step += bytes_of_sums(ranks, all.div_ceil(n), ranks.n_groups());
        }
        if optimizer.shares() || optimizer.shares_tokens() {
            let mixed = optimizer.n_shared_elements(n, optimizer.shares());
            step += bytes_of_exchange(&mixed, ranks.options.gradient_dtype.size());
        }
        let predictions = self.mutual.as_ref().map_or(0, |m| m.n_exchanges()) as f64;
        let sync = bytes_of_exchange(&shared, 4);
        let checked = optimizer.options().max_loss_increase.map_or(0.0, |_| 3.0 * small);
        Cost {
            pass: (1.0 + predictions) * small,
            step,
            sync: if optimizer.options().sync_every > 0 { sync + checked } else { 0.0 },
            probability: predictions * bytes_of_exchange(&vec![1; n], 4) / n as f64,
            meeting: 0.0,
        }
    }
}

/// What `all_reduce` of so many bytes sends.
fn ring(bytes: usize, n: usize) -> f64 {
    (2 * bytes * (n - 1)).div_ceil(n) as f64
}

/// What sums of gradients over `n` ranks send.
fn bytes_of_sums(ranks: &Ranks, elements: usize, n: usize) -> f64 {
    let bucket = ranks.bucket.len().max(1);
    match ranks.options.gradient_dtype {
        GradientDtype::F32 => ring(4 * elements, n),
        GradientDtype::Bf16 => {
            let of = |len: usize| (4 * len.div_ceil(n) * (n - 1)) as f64;
            (elements / bucket) as f64 * of(bucket) + of(elements % bucket)
        }
    }
}

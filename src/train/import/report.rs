//! What was found in a model's graph and what was done about it, for people and as JSON.

use std::fmt::{self, Display};

use serde::Serialize;

/// Items of a list that a text names; it counts the others.
const SHOWN: usize = 4;

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedParameter {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type in the file, e.g. `f32`. f64 parameters are held in f32.
    pub dtype: &'static str,
    /// Where it lies: `initializer`, `constant`, `identity` or `input`.
    pub origin: &'static str,
    /// Whether it is trained.
    pub trained: bool,
    /// Why it is not trained.
    pub reason: Option<String>,
    /// Its name in the file, where that is another one.
    pub name_in_file: Option<String>,
    /// Whether the file holds the transpose of what the state dict has under the name.
    pub transposed: bool,
    /// Other names of it: copies in the file that were tied to it.
    pub tied: Vec<String>,
    /// Rows that are not trained.
    pub frozen_rows: Vec<usize>,
}

/// An initializer that very likely stands for several parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedSharedInitializer {
    /// Its name.
    pub name: String,
    /// The nodes that read it, each with the slot.
    pub uses: Vec<String>,
    /// Names of the copies that it was split into, beside itself; empty when it was not split.
    pub split: Vec<String>,
}

/// Two matrices with the same elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedDuplicates {
    /// The one that stays.
    pub first: String,
    /// The other.
    pub second: String,
    /// Whether the other is the transpose.
    pub transposed: bool,
    /// Whether one is a lookup table.
    pub table: bool,
    /// Whether they are one parameter now.
    pub tied: bool,
}

/// A tensor of the graph that is not trained unless it is asked for by name, or never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedNonTrainable {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: &'static str,
    /// Why.
    pub reason: String,
    /// Whether naming it among `trainable` trains it.
    pub on_request: bool,
}

/// What was found in a model's graph, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// The model's name.
    pub model: String,
    /// Its parameters, trained or frozen, in graph order.
    pub parameters: Vec<ReportedParameter>,
    /// Initializers that stand for several parameters.
    pub shared_initializers: Vec<ReportedSharedInitializer>,
    /// Pairs of equal matrices.
    pub duplicate_weights: Vec<ReportedDuplicates>,
    /// Tensors that are not trained, and why.
    pub non_trainable: Vec<ReportedNonTrainable>,
    /// Names of the parameters that were newly initialised: a head for another task or number of
    /// classes, or all of a fresh model. Empty for ONNX sources.
    pub newly_initialised: Vec<String>,
    /// Weights of a directory that the model has no place for, e.g. the head of another task.
    pub unused: Vec<String>,
    /// Whether the weights of a directory were not read, as `fresh_weights` asks.
    pub fresh_weights: bool,
    /// Names of the matrices that have a low-rank adapter.
    pub adapters: Vec<String>,
}

impl ModelReport {
    /// One JSON object with the fields of this struct.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// One line: how many parameters and elements, and how many are trained.
    pub fn summary(&self) -> String {
        let elements = |trained: bool| -> usize {
            let chosen = self.parameters.iter().filter(|p| p.trained || !trained);
            chosen.map(|p| p.shape.iter().product::<usize>()).sum()
        };
        let n_trained = self.parameters.iter().filter(|p| p.trained).count();
        format!(
            "model '{}': {} parameters with {} elements; {n_trained} with {} are trained",
            self.model,
            self.parameters.len(),
            elements(false),
            elements(true)
        )
    }

    /// Why nothing of the model is trained: the first tensors that might be, with the reason.
    pub fn why_untrained(&self) -> String {
        let frozen = self.parameters.iter().filter_map(|p| Some((&p.name, p.reason.as_ref()?)));
        let others = self.non_trainable.iter().map(|t| (&t.name, &t.reason));
        let reasons = frozen.chain(others).map(|(name, reason)| format!("'{name}': {reason}"));
        let reasons: Vec<String> = self.warnings().into_iter().chain(reasons).collect();
        match reasons.len() {
            0 => "it holds no tensor of floats".to_owned(),
            _ => listed_by(&reasons, "; "),
        }
    }

    /// What to look at before training: initializers that are trained as one parameter although the
    /// model very likely has several, shared embeddings trained separately, quantised weights.
    pub fn warnings(&self) -> Vec<String> {
        let shared = self.shared_initializers.iter().filter(|m| m.split.is_empty());
        let mut lines: Vec<String> = shared
            .map(|m| {
                let (name, uses) = (&m.name, listed(&m.uses));
                format!("'{name}' is read in {} places and trained as one: {uses}", m.uses.len())
            })
            .collect();
        if self.fresh_weights {
            lines.push(
                "fresh_weights is set: no weights are read, all are newly initialised".into(),
            );
        }
        let untied = self.duplicate_weights.iter().filter(|t| t.table && !t.tied);
        lines.extend(untied.map(|t| {
            format!("'{}' and '{}' are equal and are trained separately", t.first, t.second)
        }));
        let quantised: Vec<&ReportedNonTrainable> = self
            .non_trainable
            .iter()
            .filter(|t| !t.on_request && t.reason.starts_with("quantised"))
            .collect();
        if let Some(first) = quantised.first() {
            let (n, reason) = (quantised.len(), &first.reason);
            let names: Vec<String> = quantised.iter().map(|t| t.name.clone()).collect();
            lines.push(format!("{n} tensors are not trained, {}: {reason}", listed(&names)));
        }
        lines
    }
}

/// The first items and how many more there are.
fn listed(items: &[String]) -> String {
    listed_by(items, ", ")
}

fn listed_by(items: &[String], separator: &str) -> String {
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(separator);
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        for m in &self.shared_initializers {
            let (name, uses) = (&m.name, listed(&m.uses));
            write!(f, "  shared initializer: '{name}', read in {} places: {uses}; ", m.uses.len())?;
            match m.split.len() {
                0 => writeln!(f, "trained as one")?,
                n => writeln!(f, "split into {}: {name}, {}", n + 1, listed(&m.split))?,
            }
        }
        for t in &self.duplicate_weights {
            let done = if t.tied { "tied" } else { "trained separately" };
            let transposed = if t.transposed { ", transposed" } else { "" };
            writeln!(
                f,
                "  duplicate weights: '{}' and '{}'{transposed}; {done}",
                t.first, t.second
            )?;
        }
        match self.newly_initialised.as_slice() {
            [] => {}
            all if all.len() == self.parameters.len() => {
                writeln!(f, "  newly initialised: all parameters")?;
            }
            some => writeln!(f, "  newly initialised: {}", some.join(", "))?,
        }
        if !self.adapters.is_empty() {
            let (n, names) = (self.adapters.len(), listed(&self.adapters));
            writeln!(f, "  low-rank adapters beside {n} matrices: {names}")?;
        }
        if !self.unused.is_empty() {
            writeln!(f, "  weights that are not used: {}", listed(&self.unused))?;
        }
        for p in &self.parameters {
            self.write_parameter(f, p)?;
        }
        for t in &self.non_trainable {
            writeln!(f, "  not trained: '{}' {}{:?}: {}", t.name, t.dtype, t.shape, t.reason)?;
        }
        Ok(())
    }
}

impl ModelReport {
    /// A line for each remarkable fact about a parameter.
    fn write_parameter(&self, f: &mut fmt::Formatter<'_>, p: &ReportedParameter) -> fmt::Result {
        if let Some(old) = &p.name_in_file {
            let transposed = if p.transposed { ", which holds its transpose" } else { "" };
            writeln!(f, "  renamed: '{}', in the file '{old}'{transposed}", p.name)?;
        }
        if let Some(reason) = &p.reason {
            writeln!(f, "  frozen: '{}': {reason}", p.name)?;
        }
        if !p.frozen_rows.is_empty() {
            writeln!(f, "  frozen rows: '{}' {:?}", p.name, p.frozen_rows)?;
        }
        Ok(())
    }
}

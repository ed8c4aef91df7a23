//! What fresh models started from, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::optim::{Role, Start, WeightOrBias};

/// How many rows of a table came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartRows {
    /// From one row each.
    pub copied: usize,
    /// The mean of several.
    pub composed: usize,
    /// As drawn, or kept at zero.
    pub fresh: usize,
}

/// A table of a fresh model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedTable {
    /// Token, position or type embedding.
    pub role: Role,
    /// The model that it started from.
    pub from: String,
    /// Width of its rows there, and here.
    pub widths: [usize; 2],
    /// Its rows.
    pub rows: StartRows,
}

/// A view of the body of a fresh model that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedView {
    /// What it does.
    pub role: Role,
    /// Weight or bias.
    pub part: WeightOrBias,
    /// Its block, where it has one.
    pub block: Option<usize>,
    /// The model that it was copied from.
    pub from: String,
    /// The block there.
    pub from_block: Option<usize>,
}

/// What one fresh model started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedModel {
    /// Its name.
    pub model: String,
    /// Its tables.
    pub tables: Vec<StartedTable>,
    /// Its body, view by view.
    pub views: Vec<StartedView>,
    /// Why its body, or a part of it, is as drawn; empty where nothing is to be said.
    pub notes: Vec<String>,
}

/// What the fresh models of a run started from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// The option.
    pub start: Start,
    /// The model with weights, with `pretrained`.
    pub from: Option<String>,
    /// Why `auto` left all as drawn, where there was anything to start from.
    pub note: Option<String>,
    /// The fresh models that took anything over, or could have.
    pub models: Vec<StartedModel>,
}

impl StartReport {
    /// The option as JSON has it.
    fn name(&self) -> &'static str {
        match self.start {
            Start::Own => "own",
            Start::Aligned => "aligned",
            Start::Pretrained => "pretrained",
            Start::Auto => "auto",
        }
    }

    /// One JSON object: `start`, `from`, `note`, `models` (`model`, `tables`, `views`, `notes`).
    pub fn to_json(&self) -> Value {
        let table = |t: &StartedTable| {
            json!({
                "role": t.role, "from": t.from, "widths": t.widths,
                "rows_copied": t.rows.copied, "rows_composed": t.rows.composed,
                "rows_fresh": t.rows.fresh,
            })
        };
        let view = |v: &StartedView| {
            json!({
                "role": v.role, "part": v.part, "block": v.block, "from": v.from,
                "from_block": v.from_block,
            })
        };
        let model = |m: &StartedModel| {
            json!({
                "model": m.model,
                "tables": m.tables.iter().map(table).collect::<Vec<_>>(),
                "views": m.views.iter().map(view).collect::<Vec<_>>(),
                "notes": m.notes,
            })
        };
        json!({
            "start": self.name(),
            "from": self.from,
            "note": self.note,
            "models": self.models.iter().map(model).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for StartedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StartRows { copied, composed, fresh } = self.rows;
        let (role, from, [a, b]) = (self.role.name(), &self.from, self.widths);
        write!(f, "{role} from '{from}'")?;
        match a.cmp(&b) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => write!(f, ", projected {a} -> {b}")?,
            std::cmp::Ordering::Less => write!(f, ", padded {a} -> {b}")?,
        }
        write!(f, ": {copied} rows copied, {composed} composed, {fresh} fresh")
    }
}

impl fmt::Display for StartedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role.name(), self.part.name())?;
        if let Some(block) = self.block {
            write!(f, ", block {block}")?;
        }
        write!(f, " from '{}'", self.from)?;
        match self.from_block {
            Some(block) => write!(f, ", block {block}"),
            None => Ok(()),
        }
    }
}

impl StartedModel {
    /// Its tables, the number of its views, and notes, one line each.
    pub(in crate::train) fn summary(&self) -> Vec<String> {
        let name = &self.model;
        let mut lines: Vec<String> =
            self.tables.iter().map(|t| format!("model '{name}' starts with {t}")).collect();
        if !self.views.is_empty() {
            let n = self.views.len();
            lines.push(format!("model '{name}' starts with {n} views of its body copied"));
        }
        lines.extend(self.notes.iter().map(|note| format!("model '{name}': {note}")));
        lines
    }
}

/// Nothing for `own`, and where `auto` found nothing to start from.
impl fmt::Display for StartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(note) = &self.note {
            return writeln!(f, "start: {}, as drawn: {note}", self.name());
        }
        if self.start == Start::Own || (self.start == Start::Auto && self.models.is_empty()) {
            return Ok(());
        }
        let from = self.from.iter().map(|from| format!(" from '{from}'")).collect::<String>();
        let models = match self.models.len() {
            1 => "1 fresh model".to_owned(),
            n => format!("{n} fresh models"),
        };
        writeln!(f, "start: {}{from}, {models}", self.name())?;
        for model in &self.models {
            writeln!(f, "{}", model.model)?;
            model.tables.iter().try_for_each(|t| writeln!(f, "  {t}"))?;
            model.views.iter().try_for_each(|v| writeln!(f, "  {v}"))?;
            model.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        }
        Ok(())
    }
}

//! A row of the table: an operator and its gradient rule.

use super::rule::RuleCx;
use crate::error::Result;
use crate::onnx::MMOPT_DOMAIN;

/// A function that writes the VJP of one operator.
pub type GradientRule = fn(&mut RuleCx) -> Result<()>;

/// What happens to gradients at an operator.
#[derive(Clone, Copy)]
pub enum Entry {
    /// Gradients flow through the rule.
    Rule(GradientRule),
    /// The derivative is zero wherever it exists, or the result is not a float: gradients stop.
    Stop,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Row {
    /// Operator name.
    pub op: &'static str,
    /// Operator domain; empty for ONNX's own.
    pub domain: &'static str,
    /// First opset version of the domain that the entry holds for.
    pub since: i64,
    /// What happens to gradients.
    pub entry: Entry,
    /// The attributes that the rule understands; with any other there is no gradient.
    pub attributes: &'static [&'static str],
    /// Inputs that are read for their type alone: the result does not depend on their elements.
    pub types_only: &'static [usize],
}

impl Row {
    /// The row with the attributes that its rule understands.
    pub(super) const fn with(mut self, attributes: &'static [&'static str]) -> Self {
        self.attributes = attributes;
        self
    }

    /// The row with an input that is read for its type alone.
    pub(super) const fn types_only(mut self, inputs: &'static [usize]) -> Self {
        self.types_only = inputs;
        self
    }

    const fn new(op: &'static str, domain: &'static str, since: i64, entry: Entry) -> Self {
        Self { op, domain, since, entry, attributes: &[], types_only: &[] }
    }
}

/// A row of ONNX's own domain with a rule.
pub(super) const fn rule(op: &'static str, since: i64, rule: GradientRule) -> Row {
    Row::new(op, "", since, Entry::Rule(rule))
}

/// A row of this library's domain with a rule.
pub(super) const fn own(op: &'static str, rule: GradientRule) -> Row {
    Row::new(op, MMOPT_DOMAIN, 1, Entry::Rule(rule))
}

/// A row of this library's domain that stops gradients.
pub(super) const fn own_stop(op: &'static str) -> Row {
    Row::new(op, MMOPT_DOMAIN, 1, Entry::Stop)
}

/// A row of ONNX's own domain that stops gradients.
pub(super) const fn stop(op: &'static str) -> Row {
    Row::new(op, "", 1, Entry::Stop)
}

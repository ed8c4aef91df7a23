//! A row of the table: an operator and its gradient rule.

use super::rule::RuleCx;
use crate::error::Result;

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
}

/// A row of ONNX's own domain with a rule.
pub(super) const fn rule(op: &'static str, since: i64, rule: GradientRule) -> Row {
    Row { op, domain: "", since, entry: Entry::Rule(rule) }
}

/// A row of ONNX's own domain that stops gradients.
pub(super) const fn stop(op: &'static str) -> Row {
    Row { op, domain: "", since: 1, entry: Entry::Stop }
}

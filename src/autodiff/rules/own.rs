//! This library's fused operators of the forward pass.

use crate::autodiff::fused;
use crate::autodiff::table::{Entry, Row, Rule};
use crate::onnx::OWN_DOMAIN;

pub(super) const ROWS: &[Row] = &[
    own("CrossEntropy", fused::cross_entropy),
    own("Dropout", fused::dropout),
    own("Gelu", fused::gelu),
    own("GeluTanh", fused::gelu),
];

const fn own(op: &'static str, rule: Rule) -> Row {
    Row { op, domain: OWN_DOMAIN, since: 1, entry: Entry::Rule(rule) }
}

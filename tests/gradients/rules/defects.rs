//! What older runtimes are known to do wrong, so that a case that meets it is judged by the rest.
//! What they compute wrongly is not here: the library rewrites it there.

use super::Version;
use super::case::Case;

/// A known defect, in spite of which all can be checked in f32.
pub struct Defect {
    op: &'static str,
    /// First version that is known to be without it.
    fixed: Version,
    applies: fn(&Case) -> bool,
    /// What is wrong.
    pub what: &'static str,
}

const DEFECTS: &[Defect] = &[Defect {
    op: "ReduceL2",
    fixed: (1, 24, 0),
    applies: |c| c.opset >= 18,
    what: "the runtime computes this operator of f64 in f32",
}];

/// The defect that a case meets on a runtime of `version`.
pub fn find(case: &Case, version: Version) -> Option<&'static Defect> {
    let meets = |d: &&Defect| {
        (d.op, "") == (case.op, case.domain) && version < d.fixed && (d.applies)(case)
    };
    DEFECTS.iter().find(meets)
}

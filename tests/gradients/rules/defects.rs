//! What older runtimes are known to do wrong, so that a case that meets it is judged by the rest.

use super::case::Case;

/// A known defect.
pub struct Defect {
    op: &'static str,
    domain: &'static str,
    /// First version that is known to be without it.
    fixed: (u32, u32, u32),
    applies: fn(&Case) -> bool,
    /// What is wrong.
    pub what: &'static str,
    remedy: Remedy,
}

/// What can be checked in spite of it.
enum Remedy {
    /// The rewrite's gradients, without comparing it with the kernel.
    Rewrite,
    /// All of it in f32.
    Narrow,
}

impl Defect {
    /// The case without what the defect spoils.
    pub fn without(&self, case: &Case) -> Case {
        match self.remedy {
            Remedy::Rewrite => case.clone().not_rewritten(),
            Remedy::Narrow => case.clone().narrow(),
        }
    }
}

/// The kernel of a fused operator gives another value than that of newer runtimes.
const fn kernel(
    op: &'static str,
    domain: &'static str,
    fixed: (u32, u32, u32),
    applies: fn(&Case) -> bool,
) -> Defect {
    let what = "the runtime's own kernel gives another value than newer ones";
    Defect { op, domain, fixed, applies, what, remedy: Remedy::Rewrite }
}

const DEFECTS: &[Defect] = &[
    kernel("SkipSimplifiedLayerNormalization", "com.microsoft", (1, 24, 0), |c| c.has(3)),
    // A bias that is the same for all samples.
    kernel("Attention", "com.microsoft", (1, 24, 0), |c| c.has(5)),
    kernel("MultiHeadAttention", "com.microsoft", (1, 24, 0), |c| c.has(4) || c.has(5)),
    // Queries that may look at nothing; a mask together with is_causal.
    kernel("Attention", "", (1, 32, 0), |c| c.has(3)),
    Defect {
        op: "Attention",
        domain: "",
        fixed: (1, 32, 0),
        applies: |c| c.has(4) && !c.uses(1),
        what: "the runtime's own kernel wants the present keys as an output",
        remedy: Remedy::Rewrite,
    },
    Defect {
        op: "ReduceL2",
        domain: "",
        fixed: (1, 24, 0),
        applies: |c| c.opset >= 18,
        what: "the runtime computes this operator of f64 in f32",
        remedy: Remedy::Narrow,
    },
];

/// The defect that a case meets on a runtime of `version`.
pub fn find(case: &Case, version: (u32, u32, u32)) -> Option<&'static Defect> {
    let meets = |d: &&Defect| {
        (d.op, d.domain) == (case.op, case.domain) && version < d.fixed && (d.applies)(case)
    };
    DEFECTS.iter().find(meets)
}

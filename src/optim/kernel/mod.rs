//! The arithmetic over contiguous memory: each formula is one inlined function of scalars and
//! one loop, compiled once per instruction set. No build contracts a multiplication and an
//! addition into one rounding, so all of them give the same bits.

pub(crate) mod adamw;
pub(crate) mod coefficient;
pub(crate) mod convert;
pub(crate) mod lion;
pub(crate) mod muon;
pub(crate) mod prefetch;
pub(crate) mod reduce;
pub(crate) mod runs;
pub(crate) mod sgd;
pub(crate) mod simd;
pub(crate) mod transpose;
pub(crate) mod update;
pub(crate) mod weighted_sum;

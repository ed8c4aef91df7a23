//! From a source to a graph that can be trained: a model is read, what its exporter did to
//! parameters is found and fixed, and the parameters are moved out of the graph.

mod fixes;
mod half;
mod load;
mod names;
mod report;
mod usage;

pub use fixes::{
    DuplicateWeightPair, SharedInitializer, find_duplicate_weights, find_shared_initializers,
    split_shared_initializers, tie_duplicate_weights,
};
pub(super) use half::{HalfTypes, rounded};
pub(super) use load::{Loaded, Published, load};
pub use report::{
    ModelReport, ReportedDuplicates, ReportedNonTrainable, ReportedParameter,
    ReportedSharedInitializer,
};
pub(super) use usage::usages;

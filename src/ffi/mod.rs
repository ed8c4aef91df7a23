//! The C ABI: what `include/mmopt.h` declares, in a folder for each kind of object. `header.rs`
//! says in which order and groups the header has it.
//!
//! Terms: a *handle* is an opaque C object, owned by the caller until its `_free`; an *export* is
//! a function that C calls. Every export passes `guard`, the one place where a panic ends; a
//! handle that was in use by then is poisoned and can only be freed. Handles count their users,
//! so that a call from inside a callback, or from a second thread against the thread rule, is a
//! `State` error where it can be seen. The header generated from these files is the contract: its
//! texts say what each pointer must be, which is why no `# Safety` sections stand here.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

mod core;

#[cfg(feature = "text")]
mod data;

mod model;

mod trainer;

mod optimizer;

mod comm;

mod dlpack;

mod report;

#[cfg(feature = "text")]
mod tasks;

#[cfg(feature = "text")]
mod fit;

pub use self::core::*;
pub use {comm::*, dlpack::*, model::*, optimizer::*, report::*, trainer::*};
#[cfg(feature = "text")]
pub use {data::*, fit::*, tasks::*};

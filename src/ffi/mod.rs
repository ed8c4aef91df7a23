//! The C ABI: what `include/mmopt.h` declares, one file per noun.
//!
//! Terms: a *handle* is an opaque C object, owned by the caller until its `_free`; an *export* is
//! a function that C calls. Every export passes `guard`, the one place where a panic ends; a
//! handle that was in use by then is poisoned and can only be freed. Handles count their users,
//! so that a call from inside a callback, or from a second thread against the thread rule, is a
//! `State` error where it can be seen. The header generated from these files is the contract: its
//! texts say what each pointer must be, which is why no `# Safety` sections stand here.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

mod args;
mod error;
mod guard;
mod managed;
mod structs;
mod version;

mod callback;
mod gradient;
mod names;
mod runtime;
mod tensor;
mod tensors;

#[cfg(feature = "text")]
mod architecture;
#[cfg(feature = "text")]
mod batch;
#[cfg(feature = "text")]
mod corpus;
#[cfg(feature = "text")]
mod loader;
#[cfg(feature = "text")]
mod tokenizer;

mod evaluation;
mod model;
mod model_gradients;
mod model_import_fixes;
#[cfg(feature = "text")]
mod model_text;
mod trainer;
mod trainer_gradient;
mod trainer_inspect;
mod trainer_options;
mod trainer_parameters;
mod trainer_state;

mod dlpack;
mod metrics;
mod optimizer;
mod optimizer_callbacks;
mod parameter;

pub use args::mmopt_string_free;
pub use callback::*;
pub use dlpack::*;
pub use error::*;
pub use evaluation::*;
pub use gradient::*;
pub use metrics::*;
pub use model::*;
pub use model_gradients::*;
pub use model_import_fixes::*;
pub use optimizer::*;
pub use optimizer_callbacks::*;
pub use parameter::*;
pub use runtime::*;
pub use tensor::*;
pub use trainer::*;
pub use trainer_gradient::*;
pub use trainer_inspect::*;
pub use trainer_options::*;
pub use trainer_parameters::*;
pub use trainer_state::*;
pub use version::*;

#[cfg(feature = "text")]
pub use {architecture::*, batch::*, corpus::*, loader::*, model_text::*, tokenizer::*};

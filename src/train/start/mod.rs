//! What fresh models start from: values of each other (`aligned`), or of a model of the run that
//! was loaded with weights (`pretrained`).
//!
//! - `tokens`: what a model's token ids stand for, and which rows of two tables belong together
//! - `directions`: the principal directions of a table
//! - `width`: rows of one width from rows of another
//! - `views`: the body, view by view
//! - `apply`: which model starts from which, and the tables
//! - `shared`: rows of token tables that fresh models have in common
//! - `report`: what was done
//!
//! The formulas stand in docs/optimizer.md.

pub(super) mod apply;
mod directions;
pub(super) mod report;
pub(super) mod shared;
pub(super) mod tokens;
mod views;
mod width;

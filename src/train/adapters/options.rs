//! What adapters a model gets: new ones, or those of a directory.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// The largest rank; more is a mistake in the caller's arithmetic.
pub(super) const MAX_RANK: usize = 1 << 16;

/// Low-rank adapters for some of a model's matrices. All else is frozen, but for whole modules that
/// are named.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterOptions {
    /// Which matrices of linear layers get one: names of modules, whole (`h.0.attn.c_attn`) or
    /// their last parts (`query`, `c_attn`), or glob patterns (`*`, `?`) of modules or of weights.
    pub target_modules: Vec<String>,
    /// The rank r, 1 to 65536. Default 8.
    pub rank: usize,
    /// α, 1e-30 to 1e30: the product B A is multiplied by α / r. Default 8.
    pub alpha: f64,
    /// Dropout probability of what goes into A, 0 to below 1. Default 0.
    pub dropout: f32,
    /// Modules that are trained whole and saved with the adapters, named as in `target_modules`.
    /// Default: the parts of the task's head that are newly initialised.
    pub modules_to_save: Option<Vec<String>>,
}

/// Whether α / r is a number above 0 in f32.
pub(super) fn is_alpha(alpha: f64) -> bool {
    (1e-30..=1e30).contains(&alpha)
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self {
            target_modules: Vec::new(),
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            modules_to_save: None,
        }
    }
}

impl AdapterOptions {
    /// # Errors
    /// `InvalidArgument` for what is out of range.
    pub fn check(&self) -> Result<()> {
        if self.target_modules.is_empty() {
            return Err(Error::invalid(
                "target_modules is empty; name the matrices that get an adapter, e.g. query and \
                 value",
            ));
        }
        if !(1..=MAX_RANK).contains(&self.rank) {
            let text = format!("rank is {}; an adapter's rank is 1 to {MAX_RANK}", self.rank);
            return Err(Error::invalid(text));
        }
        if !is_alpha(self.alpha) {
            let text = format!("alpha is {}; it is 1e-30 to 1e30", self.alpha);
            return Err(Error::invalid(text));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let text = format!("dropout is {}; it is at least 0 and below 1", self.dropout);
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// Where a model's adapters come from.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterSource {
    /// Newly initialised.
    New(AdapterOptions),
    /// A directory with `adapter_config.json` and `adapter_model.safetensors`, in the layout of
    /// Python's `peft`. Modules that were trained whole get their values from there.
    Saved(PathBuf),
}

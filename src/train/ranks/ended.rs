//! The word that a pass has ended, to who sums gradients over the ranks meanwhile.

use std::sync::mpsc::Sender;

use crate::train::model::{Model, Run};

/// Where a pass that has ended hands over its model, with what its loss divides by.
pub(in crate::train) struct Ended<'m>(pub(super) Option<Sender<(usize, &'m mut Model, f64)>>);

impl<'m> Ended<'m> {
    /// Nobody wants to know.
    pub fn untold() -> Self {
        Self(None)
    }

    /// For another thread.
    pub fn for_thread(&self) -> Self {
        Self(self.0.clone())
    }

    /// The pass of a model has ended well.
    pub fn tell(&self, i: usize, model: &'m mut Model, run: &Run) {
        if let Some(sender) = &self.0 {
            // After a failure nobody listens, and it is told elsewhere.
            let _ = sender.send((i, model, run.weight));
        }
    }
}

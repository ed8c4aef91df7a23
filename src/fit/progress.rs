//! What a fit tells while it runs.

use crate::error::Result;

/// What is about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A forward and backward pass of all models.
    ForwardBackward,
    /// A step of the optimizer.
    Step,
    /// A batch of an evaluation.
    Evaluate,
}

/// Asked before each pass, step and batch of an evaluation, with the model, or `None` for all, and
/// the trainer's steps so far: an error ends the fit with it.
pub type Proceed<'a> = &'a dyn Fn(Phase, Option<usize>, u64) -> Result<()>;

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitEvent {
    /// A step.
    Step,
    /// An evaluation of all models.
    Evaluation,
}

/// Where a fit is.
#[derive(Clone, Copy, Debug)]
pub struct FitProgress<'a> {
    /// What has just been done.
    pub event: FitEvent,
    /// The trainer's steps.
    pub step: u64,
    /// Epochs of the fit that are done.
    pub epoch: u64,
    /// Batches of the present epoch that are done, and that it has.
    pub batches: [usize; 2],
    /// Of a step: each model's mean loss over its micro-batches. Of an evaluation: each model's
    /// mean loss over the corpus.
    pub losses: &'a [f64],
    /// Of an evaluation: each model's score. Empty for a step.
    pub scores: &'a [f64],
    /// Of an evaluation: what early stopping looks at, in the metric's terms; else NaN.
    pub monitored: f64,
    /// Of an evaluation: whether that is the best so far.
    pub is_best: bool,
}

//! The training loop as one call.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{
    choice, flag, optional_output, optional_text, output_slice, reserved, slice,
};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::data::loader::mmopt_loader;
use crate::ffi::tasks::evaluate::mmopt_evaluate_options;
use crate::ffi::trainer::callback::{Progress, User, mmopt_phase};
use crate::ffi::trainer::create::mmopt_trainer;
use crate::fit::{Best, FitEvent, FitOptions, FitProgress, Metric, Phase, StopReason, fit_with};
use crate::text::Loader;

/// What the evaluations of a fit are compared by.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_metric {
    /// mmopt_scores.score: 0 to 1, greater is better.
    Score = 0,
    /// mmopt_scores.loss; less is better.
    Loss = 1,
}

/// How a fit goes: how long, when it evaluates, stops early, writes checkpoints and logs. "Every
/// so many steps" counts the steps of the fit. mmopt_fit_options_init fills in the defaults. Texts
/// are UTF-8 and are read during the call only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_fit_options {
    /// sizeof(mmopt_fit_options).
    pub struct_size: usize,
    /// Ends after so many epochs of the loader; 0: no limit; default 3.
    pub epochs: u64,
    /// Ends after so many steps, if epochs does not end it before; 0 (default): no limit.
    pub max_steps: u64,
    /// Evaluates every so many steps, and always at an epoch's end and after max_steps; 0
    /// (default): only then.
    pub evaluate_every: u64,
    /// What evaluations are compared by, an mmopt_metric; default MMOPT_METRIC_SCORE.
    pub metric: u32,
    /// 1: keeps each model's weights of its own best evaluation in memory, and puts them back at
    /// the end, unless the callback ended it. Default 0.
    pub keep_best: u32,
    /// The name of the model whose metric stops early; NULL (default): the mean over all models.
    pub monitor: *const c_char,
    /// Stops after so many evaluations in a row that are not better than the best; 0 (default):
    /// never.
    pub patience: u64,
    /// An evaluation is better when it exceeds the best by more than this, in the metric's terms;
    /// finite, at least 0; default 0.
    pub min_delta: f64,
    /// 1: evaluates the running means of the weights (option ema_decay, or mean teachers) in place
    /// of the weights, and keep_best keeps the means. Default 0.
    pub use_ema_weights: u32,
    /// 1: goes on from the last checkpoint in checkpoint_dir, if there is one. Default 0.
    pub resume: u32,
    /// How predictions are made for scores; NULL: the defaults.
    pub evaluate: *const mmopt_evaluate_options,
    /// The directory of checkpoints, which are written as the next two fields say, and at the end;
    /// NULL (default): none.
    pub checkpoint_dir: *const c_char,
    /// A checkpoint every so many steps; 0 (default): none.
    pub checkpoint_every: u64,
    /// A checkpoint after so many minutes, at the next step's end; finite, at least 0; 0
    /// (default): none.
    pub checkpoint_minutes: f64,
    /// Every so many steps one is logged; at least 1 (default). Evaluations always are.
    pub log_every: u64,
    /// A log of JSON lines (docs/logs.md); NULL (default): none.
    pub jsonl_path: *const c_char,
    /// A log in CSV, a row for each model; NULL (default): none.
    pub csv_path: *const c_char,
    /// The directory of an event file for TensorBoard; NULL (default): none.
    pub tensorboard_dir: *const c_char,
    /// Every so many steps the event file gets histograms of gradients, weights and the sizes of
    /// updates; 0 (default): never.
    pub histogram_every: u64,
    /// 1: the event file gets an image of the cosines between the models' gradients at each step
    /// that the trainer's option metrics_every names. Default 0.
    pub sharing_images: u32,
    /// 0; for later versions.
    pub reserved: u32,
}

impl Default for mmopt_fit_options {
    fn default() -> Self {
        let o = FitOptions::default();
        let (none, text) = (std::ptr::null(), std::ptr::null::<c_char>());
        Self {
            struct_size: size_of::<Self>(),
            epochs: o.epochs,
            max_steps: o.max_steps,
            evaluate_every: o.evaluate_every,
            metric: mmopt_metric::Score as u32,
            keep_best: u32::from(o.keep_best),
            monitor: text,
            patience: o.patience,
            min_delta: o.min_delta,
            use_ema_weights: u32::from(o.use_ema_weights),
            resume: u32::from(o.resume),
            evaluate: none,
            checkpoint_dir: text,
            checkpoint_every: o.checkpoint_every,
            checkpoint_minutes: o.checkpoint_minutes,
            log_every: o.log_every,
            jsonl_path: text,
            csv_path: text,
            tensorboard_dir: text,
            histogram_every: o.histogram_every,
            sharing_images: u32::from(o.sharing_images),
            reserved: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and pointers only.
unsafe impl Options for mmopt_fit_options {
    const NAME: &'static str = "mmopt_fit_options";
}

impl mmopt_fit_options {
    /// # Safety
    /// The pointers are NULL or lead to what the fields' comments say.
    unsafe fn checked(&self) -> Result<FitOptions> {
        reserved(self.reserved == 0, "reserved")?;
        let metrics = [(0, Metric::Score), (1, Metric::Loss)];
        // SAFETY: by this function's contract.
        let text = |text, name| unsafe { optional_text(text, name) };
        let path = |place, name| Ok::<_, Error>(text(place, name)?.map(PathBuf::from));
        Ok(FitOptions {
            epochs: self.epochs,
            max_steps: self.max_steps,
            evaluate_every: self.evaluate_every,
            metric: choice(self.metric, "metric", &metrics)?,
            monitor: text(self.monitor, "monitor")?.map(str::to_owned),
            patience: self.patience,
            min_delta: self.min_delta,
            keep_best: flag(self.keep_best, "keep_best")?,
            use_ema_weights: flag(self.use_ema_weights, "use_ema_weights")?,
            // SAFETY: by this function's contract.
            evaluate: unsafe { options(self.evaluate) }?.checked()?,
            checkpoint_dir: path(self.checkpoint_dir, "checkpoint_dir")?,
            checkpoint_every: self.checkpoint_every,
            checkpoint_minutes: self.checkpoint_minutes,
            resume: flag(self.resume, "resume")?,
            log_every: self.log_every,
            jsonl_path: path(self.jsonl_path, "jsonl_path")?,
            csv_path: path(self.csv_path, "csv_path")?,
            tensorboard_dir: path(self.tensorboard_dir, "tensorboard_dir")?,
            histogram_every: self.histogram_every,
            sharing_images: flag(self.sharing_images, "sharing_images")?,
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_fit_options_init(options: *mut mmopt_fit_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// What a fit has just done.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_fit_event {
    /// A step.
    Step = 1,
    /// An evaluation of all models.
    Evaluation = 2,
}

/// Where a fit is when its callback is called. The arrays are valid during the callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_fit_progress {
    /// What has just been done, an mmopt_fit_event.
    pub event: u32,
    /// 1: of an evaluation: what early stopping looks at is the best so far.
    pub is_best: u32,
    /// The trainer's steps.
    pub step: u64,
    /// Epochs of the fit that are done.
    pub epoch: u64,
    /// Batches of the present epoch that are done.
    pub batch: u64,
    /// Batches of an epoch.
    pub n_batches: u64,
    /// How many models.
    pub n_models: usize,
    /// Each model's mean loss: over the step's micro-batches, or over the evaluated corpus.
    pub losses: *const f64,
    /// Of an evaluation: each model's score; NULL for a step.
    pub scores: *const f64,
    /// Of an evaluation: what early stopping looks at, in the metric's terms; NaN for a step.
    pub monitored: f64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// Called after each step and each evaluation of a fit, on the thread of that call. Any result but
/// 0 ends the fit there, which is no error. It must not call into the fit's objects.
pub type mmopt_fit_progress_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, progress: *const mmopt_fit_progress) -> u32>;

/// Why a fit ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_stop_reason {
    /// All epochs are done.
    Epochs = 1,
    /// All steps are done.
    MaxSteps = 2,
    /// The metric did not get better for patience evaluations.
    EarlyStopping = 3,
    /// The callback ended it.
    Cancelled = 4,
}

/// What a fit came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_fit_result {
    /// Steps of the fit, those before a resume included.
    pub steps: u64,
    /// Epochs of the fit that are done.
    pub epochs: u64,
    /// Why it ended, an mmopt_stop_reason.
    pub reason: u32,
    /// 1: the best weights are in place.
    pub restored_best: u32,
    /// The best of what early stopping looks at, in the metric's terms; NaN without evaluation.
    pub best_score: f64,
    /// The trainer's step at which that was; 0 without evaluation.
    pub best_step: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// The best evaluation of one model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_fit_best {
    /// In the metric's terms; NaN without evaluation.
    pub score: f64,
    /// The trainer's step at which it was; 0 without evaluation.
    pub step: u64,
}

impl From<&Best> for mmopt_fit_best {
    fn from(best: &Best) -> Self {
        Self { score: best.score.unwrap_or(f64::NAN), step: best.step }
    }
}

/// The usual training loop as one call. Each step takes as many micro-batches of the loader as
/// gradient_accumulation_steps says, or those that the epoch has left: a forward and backward pass
/// of all models for each, then one step. Evaluations are those of mmopt_trainer_evaluate_loader;
/// their metrics go to mmopt_trainer_report_validation. The loop with these functions does the
/// same.
///
/// Interrupted anywhere and resumed from its last checkpoint (resume), by the same program with the
/// same models, options and loaders, a fit goes on with the same bits: weights, moments, and logs,
/// which are cut to where the checkpoint was; only times, speeds and memory differ. When the
/// callback ends it, a checkpoint is written there. The trainer's own progress callback is asked
/// before each pass, step and batch of an evaluation; it and a cancel token end the fit with
/// CANCELLED.
///
/// Log files are replaced unless the fit goes on from a checkpoint.
///
/// Errors: INVALID_ARGUMENT for options out of range or that need what is not given, and for
/// loaders for another number of models; STATE between a backward pass and its step; with resume
/// INVALID_DATA for damaged checkpoints, one that no fit wrote, one of other models or loaders, or
/// of a fit with another metric, monitor, keep_best or use_ema_weights: trainer and loader are
/// unchanged then; STATE when another trainer writes into checkpoint_dir; IO when a file cannot be
/// written; CANCELLED; and those of mmopt_trainer_forward_backward_batch, mmopt_trainer_step and
/// mmopt_trainer_evaluate_loader, after which gradients since the last step are discarded, and the
/// loader stands where it was read to.
///
/// @param[in,out] trainer exclusive access.
/// @param[in,out] loader exclusive access; batches to train on; it goes on from where it stands.
/// @param[in] evaluation_loaders shared access; what to evaluate on: none; one for all models; or
/// one for each model, in their order, which may be for that model alone; may be NULL: none.
/// @param n_evaluation_loaders 0, 1, or as many as models.
/// @param[in] options NULL: the defaults.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
/// @param[out] result may be NULL.
/// @param[out] best each model's best evaluation, room for one per model; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_fit(
    trainer: *mut mmopt_trainer,
    loader: *mut mmopt_loader,
    evaluation_loaders: *const *const mmopt_loader,
    n_evaluation_loaders: usize,
    options: *const mmopt_fit_options,
    callback: mmopt_fit_progress_fn,
    user: *mut c_void,
    result: *mut mmopt_fit_result,
    best: *mut mmopt_fit_best,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let options = self::options(options)?.checked()?;
        let result = optional_output(result, "result")?;
        let evaluation = slice(evaluation_loaders, n_evaluation_loaders, "evaluation_loaders")?;
        if let Some(i) = evaluation.iter().position(|&e| std::ptr::eq(e, loader)) {
            return Err(Error::invalid(format!(
                "evaluation_loaders[{i}] is the loader to train on; make another one of its corpus"
            )));
        }
        let named = |(i, &e)| shared(e).context(|| format!("evaluation_loaders[{i}]"));
        let evaluation = evaluation.iter().enumerate().map(named).collect::<Result<Vec<_>>>()?;
        let evaluation: Vec<&Loader> = evaluation.iter().map(|e| &**e).collect();
        let mut loader = exclusive(loader)?;
        let n = trainer.models.len();
        let room = if best.is_null() { &mut [] } else { output_slice(best, n, "best")? };
        let (asked, user) = (trainer.progress, User(user));
        let mut tell = |p: &FitProgress| tell(callback, user, p);
        let proceed = |phase, model, step| ask(&asked, phase, model, step);
        let own = &mut trainer.trainer;
        let done = fit_with(own, &mut loader, &evaluation, &options, &mut tell, &proceed);
        trainer.n_steps = trainer.trainer.optimizer().step_count();
        let done = trainer.trainer.log_error("fit", done)?;
        room.iter_mut().zip(&done.models).for_each(|(to, best)| *to = best.into());
        let mmopt_fit_best { score, step } = (&done.monitored).into();
        result.set(mmopt_fit_result {
            steps: done.steps,
            epochs: done.epochs,
            reason: match done.reason {
                StopReason::Epochs => mmopt_stop_reason::Epochs,
                StopReason::MaxSteps => mmopt_stop_reason::MaxSteps,
                StopReason::EarlyStopping => mmopt_stop_reason::EarlyStopping,
                StopReason::Cancelled => mmopt_stop_reason::Cancelled,
            } as u32,
            restored_best: u32::from(done.restored_best),
            best_score: score,
            best_step: step,
            reserved: [0; 4],
        });
        Ok(())
    })
}

/// Asks the trainer's own progress callback.
pub(super) fn ask(
    progress: &Progress,
    phase: Phase,
    model: Option<usize>,
    n_steps: u64,
) -> Result<()> {
    let phase = match phase {
        Phase::ForwardBackward => mmopt_phase::ForwardBackward,
        Phase::Step => mmopt_phase::Step,
        Phase::Evaluate => mmopt_phase::Evaluate,
    };
    progress.ask(phase, model.unwrap_or(usize::MAX), n_steps)
}

fn tell(callback: mmopt_fit_progress_fn, user: User, p: &FitProgress) -> ControlFlow<()> {
    let Some(callback) = callback else { return ControlFlow::Continue(()) };
    let progress = mmopt_fit_progress {
        event: match p.event {
            FitEvent::Step => mmopt_fit_event::Step,
            FitEvent::Evaluation => mmopt_fit_event::Evaluation,
        } as u32,
        is_best: u32::from(p.is_best),
        step: p.step,
        epoch: p.epoch,
        batch: p.batches[0] as u64,
        n_batches: p.batches[1] as u64,
        n_models: p.losses.len(),
        losses: p.losses.as_ptr(),
        scores: if p.scores.is_empty() { std::ptr::null() } else { p.scores.as_ptr() },
        monitored: p.monitored,
        reserved: [0; 4],
    };
    // SAFETY: the host gave this function for exactly this call.
    match unsafe { callback(user.0, &raw const progress) } {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

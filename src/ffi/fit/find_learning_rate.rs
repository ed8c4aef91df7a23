//! The range test for learning rates.

use super::run::ask;
use crate::error::{Error, Result};
use crate::ffi::core::args::{optional_output, output_slice};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::data::loader::mmopt_loader;
use crate::ffi::trainer::create::mmopt_trainer;
use crate::fit::{FindLearningRateOptions, find_learning_rate_with};

/// Rates are tried in so many steps at most.
const MAX_STEPS: u64 = 1 << 20;

/// How learning rates are tried. mmopt_find_learning_rate_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_find_learning_rate_options {
    /// sizeof(mmopt_find_learning_rate_options).
    pub struct_size: usize,
    /// The first rate, above 0; default 1e-7.
    pub min_lr: f64,
    /// The last rate, above min_lr and finite; default 1.
    pub max_lr: f64,
    /// Steps at most, 2 to 1048576; default 100.
    pub n_steps: u64,
    /// How much of the smoothed loss stays from step to step, 0 to below 1; default 0.95.
    pub smoothing: f64,
    /// Ends when the smoothed mean loss exceeds so many times the least one; above 1, finite;
    /// default 4.
    pub divergence: f64,
}

impl Default for mmopt_find_learning_rate_options {
    fn default() -> Self {
        let FindLearningRateOptions { min_lr, max_lr, n_steps, smoothing, divergence } =
            FindLearningRateOptions::default();
        let struct_size = size_of::<Self>();
        Self { struct_size, min_lr, max_lr, n_steps, smoothing, divergence }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_find_learning_rate_options {
    const NAME: &'static str = "mmopt_find_learning_rate_options";
}

impl mmopt_find_learning_rate_options {
    fn checked(&self) -> Result<FindLearningRateOptions> {
        let Self { min_lr, max_lr, n_steps, smoothing, divergence, .. } = *self;
        if n_steps > MAX_STEPS {
            return Err(Error::invalid(format!("n_steps {n_steps} must be at most {MAX_STEPS}")));
        }
        Ok(FindLearningRateOptions { min_lr, max_lr, n_steps, smoothing, divergence })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_find_learning_rate_options_init(
    options: *mut mmopt_find_learning_rate_options,
) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// What the range test found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_learning_rate_range {
    /// How many rates were tried, and have losses.
    pub n_rates: u64,
    /// The suggestion for all models together: where the mean of their smoothed losses, each
    /// divided by its first, falls most steeply over the logarithm of the rate. NaN when it falls
    /// nowhere.
    pub suggestion: f64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// The range test for learning rates (Smith 2017, "Cyclical Learning Rates for Training Neural
/// Networks"): the rate grows by a constant factor from step to step, the same for all models, and
/// their losses are watched. Then everything is put back: weights, moments, schedules, counters of
/// dropout, what mutual learning remembers, the loader's place; only mmopt_trainer_gradient shows
/// the last pass. Schedules, adaptive rates and the rate callback do not count meanwhile. It needs
/// memory for a copy of weights and moments.
///
/// Errors: INVALID_ARGUMENT for options out of range, or a loader for another number of models;
/// STATE between a backward pass and its step; CANCELLED; and those of
/// mmopt_trainer_forward_backward_batch and mmopt_trainer_step. After an error everything is put
/// back, too.
///
/// @param[in,out] trainer exclusive access; unchanged.
/// @param[in,out] loader exclusive access; unchanged.
/// @param[in] options NULL: the defaults.
/// @param[out] rates the rates that were tried; room for n_steps numbers; may be NULL.
/// @param[out] losses each model's smoothed loss at each rate: that of model m at rate i is
/// losses[m * n_steps + i]; room for n_models * n_steps numbers; may be NULL. A step in which a
/// model had no label leaves its as it was; rates before each model's first label are left out.
/// @param[out] suggestions a rate for each model, NaN when its loss falls nowhere; room for one per
/// model; may be NULL.
/// @param[out] result may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_find_learning_rate(
    trainer: *mut mmopt_trainer,
    loader: *mut mmopt_loader,
    options: *const mmopt_find_learning_rate_options,
    rates: *mut f64,
    losses: *mut f64,
    suggestions: *mut f64,
    result: *mut mmopt_learning_rate_range,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let mut loader = exclusive(loader)?;
        let options = self::options(options)?.checked()?;
        let result = optional_output(result, "result")?;
        let (n_models, n_steps) = (trainer.models.len(), options.n_steps as usize);
        let rates = room(rates, n_steps, "rates")?;
        let losses = room(losses, n_models * n_steps, "losses")?;
        let suggestions = room(suggestions, n_models, "suggestions")?;
        let asked = trainer.progress;
        let proceed = |phase, model, step| ask(&asked, phase, model, step);
        let own = &mut trainer.trainer;
        let curve = find_learning_rate_with(own, &mut loader, &options, &proceed);
        let curve = trainer.trainer.log_error("finding a learning rate", curve)?;
        copy(rates, &curve.rates);
        losses.chunks_mut(n_steps).zip(&curve.losses).for_each(|(to, from)| copy(to, from));
        let number = |rate: Option<f64>| rate.unwrap_or(f64::NAN);
        let found: Vec<f64> = curve.suggestions.iter().map(|&rate| number(rate)).collect();
        copy(suggestions, &found);
        result.set(mmopt_learning_rate_range {
            n_rates: curve.rates.len() as u64,
            suggestion: number(curve.suggestion),
            reserved: [0; 4],
        });
        Ok(())
    })
}

/// Room that the caller may not give.
unsafe fn room<'a>(numbers: *mut f64, n: usize, name: &str) -> Result<&'a mut [f64]> {
    if numbers.is_null() {
        return Ok(&mut []);
    }
    // SAFETY: the caller's array, by the header's contract.
    unsafe { output_slice(numbers, n, name) }
}

fn copy(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

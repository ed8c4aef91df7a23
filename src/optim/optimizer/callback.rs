//! The host's callbacks in a step: one that sees each gradient, may change it, or may update the
//! parameter itself, and one that may replace each model's learning rate.

use crate::error::{Error, Result};
use crate::optim::optimizer::models::{ModelState, Models};
use crate::optim::options::Options;
use crate::optim::sweep::buffers::ParamBuffers;
use crate::optim::sweep::executor::Executor;
use crate::tensor::DType;

/// One parameter before its update.
pub struct GradientView<'a> {
    /// The model, by its index in the list given to the optimizer.
    pub model: usize,
    /// The parameter within its model.
    pub param: usize,
    /// The model's name.
    pub model_name: &'a str,
    /// The parameter's name.
    pub name: &'a str,
    /// The dimensions; value and gradient are dense and row-major.
    pub shape: &'a [usize],
    /// The step's number, from 1.
    pub step: u64,
    /// The step uses `scale` times the gradient: 1 over the number of micro-batches, or the sum of
    /// their weights, when they are averaged, else 1.
    pub scale: f64,
    /// The values; for values of a narrow type their f32 masters.
    pub value: &'a mut [f32],
    /// The gradient, in the machine's byte order; the sum when micro-batches were accumulated.
    pub gradient: &'a mut [u8],
    /// The gradient's element type: f32, bf16 or f16.
    pub gradient_dtype: DType,
}

/// What a [`GradientCallback`] has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradientAction {
    /// The step goes on with the gradient as it is now.
    Use,
    /// The host has handled this parameter: the step leaves its value and moments alone, and
    /// its gradient counts neither for clipping nor for sharing.
    Handled,
}

/// Called for each gradient of a step after accumulation and before anything reads it. An
/// error ends the step; it can be repeated.
pub type GradientCallback =
    Box<dyn FnMut(GradientView<'_>) -> Result<GradientAction> + Send + Sync>;

/// A learning-rate callback: (model's name, step, rate) to rate.
pub type RateCallback = Box<dyn FnMut(&str, u64, f64) -> f64 + Send + Sync>;

/// The host's callbacks.
#[derive(Default)]
pub(in crate::optim) struct Callbacks {
    pub rate: Option<RateCallback>,
    pub gradient: Option<GradientCallback>,
    /// Parameters that the host has handled itself in this step.
    pub handled: Vec<bool>,
}

impl Callbacks {
    /// Calls the gradient callback for every active parameter of step `step`.
    pub fn call_gradient(
        &mut self,
        step: u64,
        options: &Options,
        models: &Models,
        executor: &mut Executor,
    ) -> Result<()> {
        self.handled.fill(false);
        let Some(callback) = &mut self.gradient else { return Ok(()) };
        for (caller, &ours) in models.order.iter().enumerate() {
            let model = &models.states[ours];
            if model.is_skipped_early(options) {
                continue;
            }
            let scale = model.accumulation_factor(options);
            for (param, spec) in model.spec.params.iter().enumerate() {
                let i = models.first_param[ours] + param;
                let ParamBuffers { p, g, g_type, len, .. } = executor.buffers[i];
                let param_step = &mut executor.param_steps[i];
                if !param_step.active || len == 0 {
                    continue;
                }
                // SAFETY: `bind` vouches for the buffers; it is the only borrow of this memory.
                let (value, gradient) = unsafe {
                    let bytes = len * g_type.size();
                    (
                        std::slice::from_raw_parts_mut(p, len),
                        std::slice::from_raw_parts_mut(g.cast_mut(), bytes),
                    )
                };
                let view = GradientView {
                    model: caller,
                    param,
                    model_name: &model.spec.name,
                    name: &spec.name,
                    shape: &spec.shape,
                    step,
                    scale,
                    value,
                    gradient,
                    gradient_dtype: g_type,
                };
                if callback(view)? == GradientAction::Handled {
                    self.handled[i] = true;
                    param_step.active = false;
                    param_step.synced = false;
                }
            }
        }
        Ok(())
    }

    /// Lets the rate callback replace every model's rate of step `step`.
    pub fn call_rate(&mut self, models: &mut [ModelState], step: u64) -> Result<()> {
        let Some(callback) = &mut self.rate else { return Ok(()) };
        for m in models {
            let rate = callback(&m.spec.name, step, m.rates.effective);
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(Error::invalid(format!(
                    "model '{}': the learning-rate callback returned {rate} at step {step}",
                    m.spec.name
                )));
            }
            m.rates.effective = rate;
        }
        Ok(())
    }
}

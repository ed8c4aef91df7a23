//! The host between backward pass and step: a callback that sees each gradient, may change it, or
//! may update the parameter itself.

use crate::error::Result;
use crate::optim::optimizer::{Optimizer, ParamState};
use crate::optim::options::{Accumulate, NonFinite};
use crate::tensor::DType;

/// One parameter of a step that is about to be taken.
pub struct GradientView<'a> {
    /// The model, as the caller of [`Optimizer::new`] counts.
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
    /// The step uses `scale` times the gradient: 1 over the number of micro-batches when they
    /// are averaged, else 1.
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
    /// The host has dealt with this parameter: the step leaves its value and moments alone, and
    /// its gradient counts neither for clipping nor for sharing.
    Taken,
}

/// Called for each gradient of a step after accumulation and before anything looks at it. An
/// error ends the step, which can be taken again.
pub type GradientCallback =
    Box<dyn FnMut(GradientView<'_>) -> Result<GradientAction> + Send + Sync>;

impl Optimizer {
    /// Lets a callback see every gradient of the coming steps, model by model in the caller's
    /// order, parameter by parameter; `None` removes it. Models that are known to be skipped for
    /// a non-finite loss are passed over.
    pub fn set_gradient_callback(&mut self, callback: Option<GradientCallback>) {
        self.gradient_callback = callback;
    }

    /// Asks the callback about the gradients of step `step`.
    pub(in crate::optim) fn ask_gradients(&mut self, step: u64) -> Result<()> {
        self.taken.fill(false);
        let Some(mut callback) = self.gradient_callback.take() else { return Ok(()) };
        let result = self.show_gradients(step, &mut callback);
        self.gradient_callback = Some(callback);
        result
    }

    fn show_gradients(&mut self, step: u64, callback: &mut GradientCallback) -> Result<()> {
        let o = &self.options;
        let mean = o.accumulate == Accumulate::Mean && o.accumulation > 1;
        for (caller, &ours) in self.order.iter().enumerate() {
            let model = &self.models[ours];
            if model.bad_loss && o.non_finite != NonFinite::Ignore {
                continue;
            }
            let scale = if mean { 1.0 / f64::from(model.window.max(1)) } else { 1.0 };
            for (param, spec) in model.spec.params.iter().enumerate() {
                let i = self.base[ours] + param;
                let (ParamState { len, .. }, lane) = (&self.params[i], &self.lanes[i]);
                if !self.own[i].active || *len == 0 {
                    continue;
                }
                // SAFETY: `bind` vouches for the lane; it is the only borrow of this memory.
                let (value, gradient) = unsafe {
                    let bytes = len * lane.g_type.size();
                    (
                        std::slice::from_raw_parts_mut(lane.p, *len),
                        std::slice::from_raw_parts_mut(lane.g.cast_mut(), bytes),
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
                    gradient_dtype: lane.g_type,
                };
                if callback(view)? == GradientAction::Taken {
                    self.taken[i] = true;
                    self.own[i].active = false;
                    self.own[i].synced = false;
                }
            }
        }
        Ok(())
    }
}

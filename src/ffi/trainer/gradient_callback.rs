//! The callback between backward pass and step, of trainers and of optimizers.

use std::ffi::{CString, c_char, c_void};

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::callback::User;
use super::create::mmopt_trainer;
use crate::error::{Error, Kind, Result};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::names::Names;
use crate::optim::{GradientAction, GradientCallback, GradientView};
use crate::tensor::DType;

/// The result of a gradient callback, for one parameter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_gradient_action {
    /// The step uses the gradient, which the callback may have changed.
    Use = 0,
    /// The callback has updated this parameter itself: the step leaves its value and moments alone,
    /// and its gradient counts neither for clipping nor for sharing.
    Handled = 1,
    /// The step fails with MMOPT_CODE_CANCELLED.
    Stop = 2,
}

/// A parameter and its gradient during a step. All pointers are valid during the callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_gradient_view {
    /// The index of the model.
    pub model: usize,
    /// The index of the parameter within its model.
    pub parameter: usize,
    /// The model's name.
    pub model_name: *const c_char,
    /// The parameter's name.
    pub name: *const c_char,
    /// The dimensions, outermost first.
    pub shape: *const i64,
    /// How many dimensions.
    pub n_dims: usize,
    /// The product of the dimensions.
    pub n_elements: usize,
    /// The values, dense and row-major; may be written.
    pub value: *mut f32,
    /// The gradient, summed over the micro-batches; may be written.
    pub gradient: *mut f32,
    /// The step uses scale times the gradient: 1 / number of micro-batches if it averages, else 1.
    pub scale: f64,
    /// The step's number, from 1.
    pub step: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// Called during a step for each parameter with a gradient, after micro-batches are summed and
/// before the gradients are used: model by model, parameter by parameter, on the thread of the
/// call. It returns an mmopt_gradient_action; any other number fails the step with
/// MMOPT_CODE_INVALID_ARGUMENT. It must not call into its trainer or optimizer.
///
/// It is not called for frozen parameters, for models without a pass since the last step, and for
/// models that are skipped because their loss is not finite. It may replace gradients that are not
/// finite. If the step fails, the library has changed nothing, but what the callback has written
/// stays; the step can be taken again, and calls it again.
pub type mmopt_gradient_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, gradient: *const mmopt_gradient_view) -> u32>;

/// The optimizer's form of a host's callback; `names` and `models` are what it receives.
///
/// # Safety
/// The callback may be called with `user` for as long as the result lives.
pub(crate) unsafe fn gradient_callback(
    callback: mmopt_gradient_fn,
    user: *mut c_void,
    models: Vec<CString>,
    names: Vec<Names>,
) -> Option<GradientCallback> {
    let (callback, user) = (callback?, User(user));
    let mut wide = Vec::new();
    let call = move |view: GradientView<'_>| {
        let user = user;
        // SAFETY: by this function's contract.
        ask(&models, &names, view, &mut wide, |g| unsafe { callback(user.0, g) })
    };
    Some(Box::new(call))
}

fn ask(
    models: &[CString],
    names: &[Names],
    view: GradientView<'_>,
    wide: &mut Vec<f32>,
    callback: impl FnOnce(*const mmopt_gradient_view) -> u32,
) -> Result<GradientAction> {
    let (model, parameter) = (view.model, view.param);
    let found = names.get(model).and_then(|n| n.described(parameter)).zip(models.get(model));
    let ((name, shape), model_name) =
        found.ok_or_else(|| Error::internal("a gradient of an unknown parameter"))?;
    let n_elements = view.value.len();
    let answer = with_f32(view.gradient, view.gradient_dtype, wide, |elements| {
        let gradient = mmopt_gradient_view {
            model,
            parameter,
            model_name: model_name.as_ptr(),
            name: name.as_ptr(),
            shape: shape.as_ptr(),
            n_dims: shape.len(),
            n_elements,
            value: view.value.as_mut_ptr(),
            gradient: elements,
            scale: view.scale,
            step: view.step,
            reserved: [0; 4],
        };
        callback(&raw const gradient)
    })?;
    match answer {
        0 => Ok(GradientAction::Use),
        1 => Ok(GradientAction::Handled),
        2 => Err(Error::new(Kind::Cancelled, "the gradient callback asked to stop")),
        other => Err(Error::invalid(format!(
            "the gradient callback returned {other}; an mmopt_gradient_action is 0, 1 or 2"
        ))),
    }
}

/// Calls `f` with a gradient as f32: in place, or widened into `wide`.
fn with_f32<R>(
    bytes: &mut [u8],
    dtype: DType,
    wide: &mut Vec<f32>,
    f: impl FnOnce(*mut f32) -> R,
) -> Result<R> {
    match dtype {
        DType::F32 => Ok(f(bytes.as_mut_ptr().cast())),
        DType::BF16 => widened(bytes, wide, bf16::from_f32, f),
        DType::F16 => widened(bytes, wide, f16::from_f32, f),
        other => Err(Error::internal(format!("a gradient of type {other:?}"))),
    }
}

/// What `f` has changed is rounded back; the rest is not written, as the host's memory may be for
/// reading only.
fn widened<T: Pod, R>(
    bytes: &mut [u8],
    wide: &mut Vec<f32>,
    round: fn(f32) -> T,
    f: impl FnOnce(*mut f32) -> R,
) -> Result<R>
where
    [T]: HalfFloatSliceExt,
{
    let narrow: &mut [T] = bytemuck::try_cast_slice_mut(bytes)
        .map_err(|e| Error::internal(format!("a gradient's memory: {e}")))?;
    wide.resize(narrow.len(), 0.0);
    narrow.convert_to_f32_slice(wide);
    let answer = f(wide.as_mut_ptr());
    for (narrow, &wide) in narrow.iter_mut().zip(wide.iter()) {
        let rounded = round(wide);
        if bytemuck::bytes_of(&rounded) != bytemuck::bytes_of(narrow) {
            *narrow = rounded;
        }
    }
    Ok(answer)
}

/// Sets the callback that sees each gradient between backward pass and step, for a filter or an
/// optimizer of the host; NULL removes it. user must stay valid until it is replaced or the trainer
/// is freed.
///
/// Errors: only those of any call.
///
/// @param[in,out] trainer exclusive access.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_gradient_callback(
    trainer: *mut mmopt_trainer,
    callback: mmopt_gradient_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let (models, names) = (trainer.models.clone(), trainer.names.clone());
        let made = gradient_callback(callback, user, models, names);
        trainer.trainer.optimizer_mut().set_gradient_callback(made);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_gradients_are_seen_as_f32_and_rounded_back() {
        let mut values = [1.0, -0.0, 3.0].map(bf16::from_f32);
        let (mut wide, bytes) = (vec![9.0; 7], bytemuck::cast_slice_mut(&mut values));
        let answer = with_f32(bytes, DType::BF16, &mut wide, |p| {
            // SAFETY: as many elements as there are values.
            let seen = unsafe { std::slice::from_raw_parts_mut(p, 3) };
            assert_eq!(seen, [1.0, -0.0, 3.0]);
            seen[2] = 1.0 + 0.75 / 128.0;
            7
        });
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(values.map(bf16::to_bits), [0x3f80, 0x8000, 0x3f81]);
    }
}

//! What a host's own optimizer or filter needs of a trainer: a callback between backward pass and
//! step, and views of values and gradients that outlive the trainer.

use std::ffi::{CString, c_char, c_void};

use super::args::{flag, output};
use super::callback::User;
use super::error::mmopt_error;
use super::guard::{exclusive, guard, shared};
use super::managed::{Memory, READ_ONLY, export};
use super::trainer::mmopt_trainer;
use super::trainer_parameters::Names;
use crate::error::{Error, Kind, Result};
use crate::optim::{GradientAction, GradientCallback, GradientView};
use crate::tensor::DType;

/// What a gradient callback has decided about one parameter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_gradient_action {
    /// The step uses the gradient as it is now.
    Use = 0,
    /// The host has dealt with this parameter: the step leaves its value and moments alone, and its
    /// gradient counts neither for clipping nor for sharing.
    Taken = 1,
    /// The step fails with MMOPT_CODE_CANCELLED.
    Stop = 2,
}

/// One parameter of a step that is about to be taken. All pointers are valid during the callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_gradient {
    /// The model's number.
    pub model: usize,
    /// The parameter's number within its model.
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
    /// The values, dense and row-major; the host may write them.
    pub value: *mut f32,
    /// The gradient of the values, which the host may write; the sum over the micro-batches.
    pub gradient: *mut f32,
    /// The step uses scale times the gradient: 1 over the number of micro-batches when it averages
    /// over them, else 1.
    pub scale: f64,
    /// The step's number, from 1.
    pub step: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// Called within a step for each parameter that has a gradient, after micro-batches were added up
/// and before anything looks at the gradients: model by model, parameter by parameter, on the
/// thread of mmopt_trainer_step. It returns an mmopt_gradient_action; any other number fails the
/// step with MMOPT_CODE_INVALID_ARGUMENT. It must not call into the trainer that it is set on.
///
/// It is not called for frozen parameters, for models without a pass since the last step, and for
/// models that will be skipped as their loss is not finite. Gradients that are not finite it may
/// mend. Where the step fails, at its word or later, the library has changed nothing, but what the
/// callback has written stays; the step can be taken again, and asks again.
pub type mmopt_gradient_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, gradient: *const mmopt_gradient) -> u32>;

/// Shows a callback each gradient between backward pass and step, so that a filter or an optimizer
/// of the host's own can be put in; a NULL callback ends that. user is handed back to it and must
/// stay valid until then, or until the trainer is freed.
///
/// Errors: STATE while another call uses the trainer.
///
/// @param[in,out] trainer changed: needed alone.
/// @param callback NULL: none.
/// @param user handed back to the callback.
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
        let user = User(user);
        let made = callback.map(|callback| {
            let call = move |view: GradientView<'_>| {
                let user = user;
                ask(&models, &names, view, |g| callback(user.0, g))
            };
            Box::new(call) as GradientCallback
        });
        trainer.trainer.optimizer_mut().set_gradient_callback(made);
        Ok(())
    })
}

fn ask(
    models: &[CString],
    names: &[Names],
    view: GradientView<'_>,
    callback: impl FnOnce(*const mmopt_gradient) -> u32,
) -> Result<GradientAction> {
    let (model, parameter) = (view.model, view.param);
    let found = names.get(model).and_then(|n| n.described(parameter)).zip(models.get(model));
    let ((name, shape), model_name) =
        found.ok_or_else(|| Error::internal("a gradient of an unknown parameter"))?;
    if view.gradient_dtype != DType::F32 {
        return Err(Error::internal("a gradient that is not f32"));
    }
    let gradient = mmopt_gradient {
        model,
        parameter,
        model_name: model_name.as_ptr(),
        name: name.as_ptr(),
        shape: shape.as_ptr(),
        n_dims: shape.len(),
        n_elements: view.value.len(),
        value: view.value.as_mut_ptr(),
        gradient: view.gradient.as_mut_ptr().cast(),
        scale: view.scale,
        step: view.step,
        reserved: [0; 4],
    };
    match callback(&raw const gradient) {
        0 => Ok(GradientAction::Use),
        1 => Ok(GradientAction::Taken),
        2 => Err(Error::new(Kind::Cancelled, "the gradient callback asked to stop")),
        other => Err(Error::invalid(format!(
            "the gradient callback returned {other}; an mmopt_gradient_action is 0, 1 or 2"
        ))),
    }
}

/// A parameter's value as a DLManagedTensorVersioned that points into the trainer's memory, without
/// a copy. The caller owns it and calls its deleter once, before or after the trainer is freed, on
/// any thread: the memory lives as long as the last of them. Until the trainer is freed the
/// elements change with each step. writable 0 flags it as read-only; 1 does not, and writing
/// through it then counts as a call that needs the trainer alone.
///
/// Errors: INVALID_ARGUMENT for a model, parameter or flag that there is not.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param writable 0 or 1.
/// @param[out] managed becomes the DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_parameter_dlpack(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    writable: u32,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (flags, out) = (flags(writable)?, output(managed, "managed")?);
        let name = trainer.names_of(model)?.name(parameter)?;
        let view = trainer.trainer.share_parameter(model, name)?;
        out.set(export(Memory::Shared(view), flags)?);
        Ok(())
    })
}

/// As mmopt_trainer_parameter_dlpack for a parameter's gradient; each backward pass overwrites it.
///
/// Errors: STATE as mmopt_trainer_gradient.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param writable 0 or 1.
/// @param[out] managed becomes the DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_gradient_dlpack(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    writable: u32,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (flags, out) = (flags(writable)?, output(managed, "managed")?);
        let name = trainer.names_of(model)?.name(parameter)?;
        let view = trainer.trainer.share_gradient(model, name)?;
        let view =
            view.ok_or_else(|| Error::state(format!("parameter '{name}' has no gradient (yet)")))?;
        out.set(export(Memory::Shared(view), flags)?);
        Ok(())
    })
}

fn flags(writable: u32) -> Result<u64> {
    Ok(if flag(writable, "writable")? { 0 } else { READ_ONLY })
}

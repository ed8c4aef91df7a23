//! The host's parameters: how a program describes values and gradients that lie in its memory.

use std::ffi::{c_char, c_void};

use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{choice, flag, optional_text, reserved, slice, text};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::core::tensor::{DTYPES, mmopt_dtype};
use crate::optim::{ModelSpec, ParamSpec, RoleOverride, StridedBuffer, StridedBuffers};
use crate::tensor::{DType, element_count};

/// Element type and strides of a parameter that is not dense, row-major f32. Strides are in
/// elements, one for each dimension; they may be negative, but no two elements may overlap.
///
/// For bf16 and f16 values the optimizer keeps f32 master weights, 4 bytes per element. It updates
/// them in f32, and after each step rounds them into the host's memory, to nearest, ties to even.
/// An element that the host changes between steps replaces its master. f32 values with strides cost
/// as much for a copy, gradients with strides a copy in their own type.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_parameter_layout {
    /// sizeof(mmopt_parameter_layout); mmopt_parameter_layout_init sets it.
    pub struct_size: usize,
    /// Element type of the values: MMOPT_DTYPE_F32 (the default), MMOPT_DTYPE_BF16 or
    /// MMOPT_DTYPE_F16; any other only for frozen parameters.
    pub dtype: u32,
    /// Must be 0.
    pub reserved: u32,
    /// n_dims strides of the values; NULL (the default): dense and row-major.
    pub strides: *const i64,
    /// n_dims strides of the gradient; NULL (the default): dense and row-major.
    pub gradient_strides: *const i64,
}

impl Default for mmopt_parameter_layout {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            dtype: mmopt_dtype::F32 as u32,
            reserved: 0,
            strides: std::ptr::null(),
            gradient_strides: std::ptr::null(),
        }
    }
}

// SAFETY: repr(C), integers and raw pointers only, begins with its size.
unsafe impl Options for mmopt_parameter_layout {
    const NAME: &'static str = "mmopt_parameter_layout";
}

/// Fills in the defaults: dense, row-major f32. NULL is harmless.
///
/// @param[out] layout filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_parameter_layout_init(layout: *mut mmopt_parameter_layout) {
    // SAFETY: the caller's struct or NULL, by the header's contract.
    unsafe { init(layout) };
}

/// One parameter in the host's memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_parameter {
    /// Unique within its model. The published name, if there is one, as it decides the role.
    pub name: *const c_char,
    /// The dimensions, outermost first; NULL is allowed when n_dims is 0.
    pub shape: *const i64,
    /// How many dimensions.
    pub n_dims: usize,
    /// The values, aligned to their size; updated in place. f32, unless layout says otherwise. With
    /// strides, the address of the element at index 0. May be NULL when a dimension is 0.
    pub data: *mut c_void,
    /// The gradient, of the same shape; NULL when there is none.
    pub gradient: *mut c_void,
    /// Element type of the gradient: MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16.
    pub gradient_dtype: u32,
    /// 1: the optimizer changes it; 0: frozen.
    pub trainable: u32,
    /// NULL: the role follows from the name. Else a JSON object that overrides it: role (for
    /// example "attention_query", or null to keep it out of every group), part ("weight" or
    /// "bias"), block, layout ("out_in" or "in_out"); docs/options.md lists all.
    pub role_json: *const c_char,
    /// NULL: values are f32, and both values and gradient dense and row-major.
    pub layout: *const mmopt_parameter_layout,
    /// Must be 0.
    pub reserved: [u64; 1],
}

/// One model of the host: its parameters, and what decides about sharing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_model_parameters {
    /// Unique among the models.
    pub name: *const c_char,
    /// Its parameters.
    pub parameters: *const mmopt_parameter,
    /// How many.
    pub n_parameters: usize,
    /// Weight among the models, finite and at least 0; only ratios matter.
    pub weight: f64,
    /// The model_type of config.json, for reports; NULL: unknown.
    pub architecture: *const c_char,
    /// Embeddings are shared only between models of the same vocabulary; NULL: never.
    pub vocabulary: *const c_char,
    /// Heads are shared only between models of the same task; NULL: never.
    pub task: *const c_char,
    /// 1: the gradients stay valid at their addresses until they are replaced or the optimizer is
    /// freed, as with zero_grad(set_to_none=False) of PyTorch. 0: each gradient counts once. After
    /// it was read, by mmopt_optimizer_step, or with more than one micro-batch per step by
    /// mmopt_optimizer_accumulate, mmopt_optimizer_set_gradient must name it again, or say that
    /// there is none.
    pub stable_gradients: u32,
    /// Must be 0.
    pub reserved0: u32,
    /// Must be 0.
    pub reserved: [u64; 1],
}

/// Strides of a place, or none for NULL.
///
/// # Safety
/// `strides` is NULL or leads to `n_dims` numbers.
pub(crate) unsafe fn strides(
    strides: *const i64,
    n_dims: usize,
    what: &str,
) -> Result<Option<Vec<i64>>> {
    if strides.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    Ok(Some(unsafe { slice(strides, n_dims, what) }?.to_vec()))
}

unsafe fn param_spec(p: &mmopt_parameter) -> Result<(ParamSpec, StridedBuffers)> {
    // SAFETY: the caller's texts and arrays, by the header's contract.
    let (name, dims, role) = unsafe {
        let name = text(p.name, "parameter.name")?;
        let dims = slice(p.shape, p.n_dims, "parameter.shape")?;
        (name, dims, optional_text(p.role_json, "parameter.role_json")?)
    };
    let check = || -> Result<(ParamSpec, StridedBuffers)> {
        let shape = dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| Error::shape(format!("a dimension of {dims:?} < 0")))?;
        let n = element_count(&shape)?;
        if p.data.is_null() && n > 0 {
            return Err(Error::invalid("data is NULL"));
        }
        let role = role.map(RoleOverride::from_json).transpose().context(|| "role_json")?;
        reserved(p.reserved == [0], "reserved")?;
        let trainable = flag(p.trainable, "trainable")?;
        let grad_dtype = choice(p.gradient_dtype, "gradient_dtype", &DTYPES)?;
        // SAFETY: as above.
        let (dtype, places) = unsafe { places(p, grad_dtype) }?;
        let spec = ParamSpec { trainable, role, dtype, ..ParamSpec::new(name, &shape) };
        Ok((spec, places))
    };
    check().context(|| format!("parameter '{name}'"))
}

unsafe fn places(p: &mmopt_parameter, grad_dtype: DType) -> Result<(DType, StridedBuffers)> {
    // SAFETY: the caller's struct and arrays, by the header's contract.
    unsafe {
        let layout = options(p.layout)?;
        reserved(layout.reserved == 0, "layout.reserved")?;
        let dtype = choice(layout.dtype, "layout.dtype", &DTYPES)?;
        let value = StridedBuffer {
            data: p.data.cast(),
            dtype,
            strides: strides(layout.strides, p.n_dims, "layout.strides")?,
        };
        let gradient = StridedBuffer {
            data: p.gradient.cast(),
            dtype: grad_dtype,
            strides: strides(layout.gradient_strides, p.n_dims, "layout.gradient_strides")?,
        };
        Ok((dtype, StridedBuffers { value, gradient }))
    }
}

/// What the optimizer learns of a model, and where its parameters are.
///
/// # Safety
/// The pointers inside are NULL or lead to what the header says.
pub(crate) unsafe fn model_spec(
    m: &mmopt_model_parameters,
) -> Result<(ModelSpec, Vec<StridedBuffers>)> {
    // SAFETY: the caller's texts and arrays, by the header's contract.
    unsafe {
        let name = text(m.name, "model.name")?;
        if name.is_empty() {
            return Err(Error::invalid("model.name is empty; models are told by their names"));
        }
        let owned = |t: *const c_char, what| -> Result<Option<String>> {
            Ok(optional_text(t, what)?.map(str::to_owned))
        };
        reserved(m.reserved == [0] && m.reserved0 == 0, "model.reserved")?;
        let parameters = slice(m.parameters, m.n_parameters, "model.parameters")?;
        let read = |p| param_spec(p).context(|| format!("model '{name}'"));
        let all = parameters.iter().map(read).collect::<Result<Vec<_>>>()?;
        let (params, places) = all.into_iter().unzip();
        let spec = ModelSpec {
            weight: m.weight,
            architecture: owned(m.architecture, "model.architecture")?,
            vocabulary: owned(m.vocabulary, "model.vocabulary")?,
            task: owned(m.task, "model.task")?,
            ..ModelSpec::new(name, params)
        };
        Ok((spec, places))
    }
}

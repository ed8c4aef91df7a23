//! One parameter's state: moments, accumulated gradient, dense copies, and where the host has it.

use crate::error::{Error, Result};
use crate::optim::memory::strided::StridedArray;
use crate::optim::options::{Method, MomentDtype, Options, ParamGroup, SharePolicy};
use crate::optim::plan::classify::{RoleView, classify};
use crate::optim::plan::pattern::matches;
use crate::optim::plan::spec::{ModelSpec, ParamSpec, is_trainable};
use crate::optim::sweep::buffers::ParamBuffers;
use crate::tensor::{DType, Tensor, element_count};

/// One parameter's numbers and memory.
pub(in crate::optim) struct ParamState {
    pub model: usize,
    pub index: usize,
    pub len: usize,
    pub trainable: bool,
    pub lr_scale: f64,
    pub weight_decay: f64,
    /// Muon's orthogonalised update applies.
    pub muon: bool,
    /// Whether this process runs its model, and so has its gradient.
    pub local: bool,
    /// Whether this process has its moments, and updates it.
    pub state_here: bool,
    /// The process that updates it, of several.
    pub owner: usize,
    /// Steps that changed it.
    pub steps: u64,
    pub m: Option<Tensor>,
    pub v: Option<Tensor>,
    pub x: Option<Tensor>,
    /// Sum of the micro-batches' gradients, and whether it holds one since the last step.
    pub grad_sum: Option<Tensor>,
    pub has_grad_sum: bool,
    /// Where the host has it.
    pub value: StridedArray,
    pub gradient: StridedArray,
    /// Whether the gradient was bound since it was read.
    pub fresh: bool,
    /// The dense f32 copy of values that are not: the master weights of narrow ones.
    pub dense_value: Option<Tensor>,
    /// The dense copy of a gradient with strides, of its type.
    pub dense_gradient: Option<Tensor>,
}

/// What a parameter needs beside what it has.
#[derive(Default)]
pub(in crate::optim) struct Missing {
    m: Option<Tensor>,
    v: Option<Tensor>,
    x: Option<Tensor>,
    dense_value: Option<Tensor>,
}

impl ParamState {
    /// Applies the pattern groups to one parameter; writes `trainable` back to its spec.
    pub fn new(
        options: &Options,
        model: usize,
        index: usize,
        spec: &mut ModelSpec,
    ) -> Result<Self> {
        let p = &spec.params[index];
        let bare = options.decay_matrices_only && p.shape.len() < 2;
        let mut state = Self {
            model,
            index,
            len: element_count(&p.shape)?,
            trainable: p.trainable,
            lr_scale: 1.0,
            weight_decay: if bare { 0.0 } else { options.weight_decay },
            muon: false,
            local: true,
            state_here: true,
            owner: 0,
            steps: 0,
            m: None,
            v: None,
            x: None,
            grad_sum: None,
            has_grad_sum: false,
            value: StridedArray::none(),
            gradient: StridedArray::none(),
            fresh: false,
            dense_value: None,
            dense_gradient: None,
        };
        let hits = |g: &&ParamGroup| matches(&g.pattern, &p.name) && matches(&g.model, &spec.name);
        for group in options.param_groups.iter().filter(hits) {
            state.trainable = group.trainable.unwrap_or(state.trainable);
            state.lr_scale = group.lr_scale.unwrap_or(state.lr_scale);
            state.weight_decay = group.weight_decay.unwrap_or(state.weight_decay);
        }
        if state.trainable && !is_trainable(p.dtype) {
            return Err(not_trainable(&spec.name, &p.name, p.dtype));
        }
        let hidden = |p: &ParamSpec| {
            let views = classify(p, 0);
            let whole = |v: &RoleView| v.role.is_hidden_matrix() && !v.part.is_adapter();
            !views.is_empty() && views.iter().all(whole)
        };
        state.muon = options.method == Method::Muon && p.shape.len() == 2 && hidden(p);
        spec.params[index].trainable = state.trainable;
        Ok(state)
    }

    /// Whether the host's values hold fewer digits than the step works with.
    pub fn is_narrow(&self) -> bool {
        matches!(self.value.dtype, DType::BF16 | DType::F16)
    }

    /// Whether the dense copy holds master weights.
    pub fn has_master(&self) -> bool {
        self.dense_value.is_some() && self.is_narrow()
    }

    /// Which it has of its moments and the dense copy.
    pub fn present(&self) -> [bool; 4] {
        [&self.m, &self.v, &self.x, &self.dense_value].map(Option::is_some)
    }

    /// Zeros for what is not `present` of its moments and, for values that need one, its dense
    /// copy, to be trained or not with its values there.
    pub fn missing(
        &self,
        options: &Options,
        shape: &[usize],
        value: &StridedArray,
        trainable: bool,
        present: [bool; 4],
    ) -> Result<Missing> {
        let [m, v, x, dense_value] = present.map(|there| !there);
        let zeros = |dtype, wanted: bool| wanted.then(|| Tensor::zeros(dtype, shape)).transpose();
        let dtype = if self.muon { DType::F32 } else { moment_dtype(options) };
        let adam = matches!(options.method, Method::AdamW | Method::Muon);
        let changes = trainable || options.share_policy == SharePolicy::Paper;
        let updated = trainable && self.state_here;
        let has_max = options.amsgrad && adam && !self.muon;
        Ok(Missing {
            m: zeros(dtype, updated && m)?,
            v: zeros(dtype, updated && adam && v)?,
            x: zeros(dtype, updated && has_max && x)?,
            // Zero is the master of +0 and of nothing else: the first gathering reads the host's.
            dense_value: zeros(DType::F32, needs_dense_copy(value) && changes && dense_value)?,
        })
    }

    /// Says where its gradient and its moments are; moments that are elsewhere are freed.
    pub fn place(&mut self, owner: usize, here: [bool; 2], buffers: &mut ParamBuffers) {
        self.owner = owner;
        [self.local, self.state_here] = here;
        if !self.state_here {
            (self.m, self.v, self.x) = (None, None, None);
            let null = std::ptr::null_mut();
            (buffers.m, buffers.v, buffers.x) = (null, null, null);
        }
        if !self.local {
            (self.grad_sum, self.has_grad_sum) = (None, false);
        }
    }

    /// Bytes of the moments that training it takes.
    pub fn moment_bytes(&self, options: &Options) -> usize {
        let adam = matches!(options.method, Method::AdamW | Method::Muon);
        let n = 1 + usize::from(adam) + usize::from(options.amsgrad && adam && !self.muon);
        let dtype = if self.muon { DType::F32 } else { moment_dtype(options) };
        if self.trainable { n * self.len * dtype.size() } else { 0 }
    }

    /// Takes what was missing, and tells the sweep where everything is.
    pub fn take(&mut self, missing: Missing, buffers: &mut ParamBuffers) {
        let Missing { m, v, x, dense_value } = missing;
        self.m = m.or_else(|| self.m.take());
        self.v = v.or_else(|| self.v.take());
        self.x = x.or_else(|| self.x.take());
        self.dense_value = dense_value.or_else(|| self.dense_value.take());
        let direct = !needs_dense_copy(&self.value) && is_trainable(self.value.dtype);
        if direct {
            self.dense_value = None;
        }
        buffers.p =
            if direct { self.value.data.cast() } else { pointer(&mut self.dense_value).cast() };
        buffers.m = pointer(&mut self.m);
        buffers.v = pointer(&mut self.v);
        buffers.x = pointer(&mut self.x);
    }

    /// Memory for a dense copy of a gradient, where it needs one and there is none of its type.
    pub fn missing_gradient(&self, gradient: &StridedArray) -> Result<Option<Tensor>> {
        let fits = self.dense_gradient.as_ref().is_some_and(|t| t.dtype() == gradient.dtype);
        if gradient.is_dense() || gradient.is_null() || fits {
            return Ok(None);
        }
        Tensor::zeros(gradient.dtype, &[self.len]).map(Some)
    }

    /// The gradient that the sweep reads: the host's memory, or a copy of it when it is not dense.
    pub fn bind_gradient(&mut self, missing: Option<Tensor>, buffers: &mut ParamBuffers) {
        buffers.g_type = self.gradient.dtype;
        if self.gradient.is_dense() || self.gradient.is_null() {
            self.dense_gradient = None;
            buffers.g = self.gradient.data;
            return;
        }
        self.dense_gradient = missing.or_else(|| self.dense_gradient.take());
        buffers.g = pointer(&mut self.dense_gradient);
    }
}

/// Whether the sweep cannot work on the host's memory itself.
fn needs_dense_copy(value: &StridedArray) -> bool {
    let dense = value.dtype == DType::F32 && value.is_dense();
    !value.is_null() && is_trainable(value.dtype) && !dense
}

/// The error for a parameter of a type that cannot be trained.
pub(in crate::optim) fn not_trainable(model: &str, param: &str, dtype: DType) -> Error {
    Error::unsupported(format!(
        "model '{model}', parameter '{param}' has element type {dtype}; only f32, bf16 and f16 \
         can be trained, freeze it"
    ))
}

/// The element type of moments.
pub(in crate::optim) fn moment_dtype(options: &Options) -> DType {
    match options.moment_dtype {
        MomentDtype::F32 => DType::F32,
        MomentDtype::BF16 => DType::BF16,
    }
}

fn pointer(tensor: &mut Option<Tensor>) -> *mut u8 {
    tensor.as_mut().map_or(std::ptr::null_mut(), |t| t.bytes_mut().as_mut_ptr())
}

//! How a kernel is described to the runtime, and the guard around each: a panic that reached the
//! runtime would end the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::{Shape, SymbolicDimensions, TensorElementType as Type, ValueType};

use super::{dropout, embedding, loss, norm, pointwise};

/// The result of a kernel.
pub(super) type Result<T = ()> = ort::Result<T>;

/// Shape of an output in terms of an input's.
#[derive(Clone, Copy)]
pub(super) enum Dims {
    /// That of input `i`.
    Like(usize),
    /// All but the last of input `i`.
    Outer(usize),
}

/// Attributes of the cross-entropy and of dropout; zero for the operators that have none.
#[derive(Clone, Copy, Default)]
pub(super) struct Attributes {
    pub(super) ignore_index: i64,
    pub(super) label_smoothing: f32,
    pub(super) ratio: f32,
    pub(super) salt: i64,
}

/// One operator: a row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    inputs: &'static [Type],
    outputs: &'static [Dims],
    compute: fn(&ComputeContext, &Attributes) -> Result,
}

impl Row {
    /// How many outputs a node has; none may be left out.
    #[cfg(test)]
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }
}

use Dims::{Like, Outer};
use Type::{Float32 as F, Int64 as I};

/// All operators; outputs are f32 throughout.
pub(super) static ROWS: &[Row] = &[
    Row {
        name: "LayerNormGrad",
        inputs: &[F, F, F, F, F],
        outputs: &[Like(1), Like(2), Like(2)],
        compute: norm::layer_norm_grad,
    },
    Row { name: "Gelu", inputs: &[F], outputs: &[Like(0)], compute: pointwise::gelu },
    Row { name: "GeluTanh", inputs: &[F], outputs: &[Like(0)], compute: pointwise::gelu_tanh },
    Row { name: "GeluGrad", inputs: &[F, F], outputs: &[Like(1)], compute: pointwise::gelu_grad },
    Row {
        name: "GeluTanhGrad",
        inputs: &[F, F],
        outputs: &[Like(1)],
        compute: pointwise::gelu_tanh_grad,
    },
    Row {
        name: "SoftmaxGrad",
        inputs: &[F, F],
        outputs: &[Like(1)],
        compute: pointwise::softmax_grad,
    },
    Row {
        name: "CrossEntropy",
        inputs: &[F, I],
        outputs: &[Outer(0), Outer(0)],
        compute: loss::cross_entropy,
    },
    Row {
        name: "CrossEntropyGrad",
        inputs: &[F, F, I, F],
        outputs: &[Like(1)],
        compute: loss::cross_entropy_grad,
    },
    Row {
        name: "EmbeddingGrad",
        inputs: &[I, F, F],
        outputs: &[Like(2)],
        compute: embedding::embedding_grad,
    },
    Row { name: "Dropout", inputs: &[F, I], outputs: &[Like(0)], compute: dropout::dropout },
];

/// A row as the runtime's binding wants it.
pub(super) struct Op(pub(super) &'static Row);

impl Operator for Op {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.0.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.0.inputs.iter().map(|&ty| OperatorInput::required(ty))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        // All required: runtimes up to 1.24 crash on the inferred shape of one that is left out.
        self.0.outputs.iter().map(|_| OperatorOutput::required(F))
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> Result<BoxedKernel<'attr>> {
        let row = self.0;
        let attributes = Attributes {
            ignore_index: info.get("ignore_index").unwrap_or(0),
            label_smoothing: info.get("label_smoothing").unwrap_or(0.0),
            ratio: info.get("ratio").unwrap_or(0.0),
            salt: info.get("salt").unwrap_or(0),
        };
        Ok(Box::new(move |cx: &ComputeContext| {
            guarded(|| (row.compute)(cx, &attributes))
                .unwrap_or_else(|_| Err(refuse(DEFECT)))
                .map_err(|e| refuse(&format!("mmopt.{}: {}", row.name, e.message())))
        }))
    }

    fn infer_shape(&self, cx: &mut ShapeInferenceContext) -> Result {
        guarded(|| infer(self.0, cx)).unwrap_or(Ok(()))
    }
}

fn infer(row: &Row, cx: &mut ShapeInferenceContext) -> Result {
    let inputs = cx.inputs();
    for (i, rule) in row.outputs.iter().enumerate() {
        let (Like(from) | Outer(from)) = *rule;
        let Some(ValueType::Tensor { shape, dimension_symbols, .. }) = inputs.get(from) else {
            continue;
        };
        // No operator here takes a scalar: an empty shape means that nothing is known.
        let Some(last) = shape.len().checked_sub(1) else { continue };
        let rank = if matches!(rule, Like(_)) { last + 1 } else { last };
        let symbols: Vec<String> = dimension_symbols.iter().take(rank).cloned().collect();
        let ty = ValueType::Tensor {
            ty: F,
            shape: Shape::new(shape[..rank].iter().copied()),
            dimension_symbols: SymbolicDimensions::new(symbols),
        };
        cx.set_output(i, &ty)?;
    }
    Ok(())
}

const DEFECT: &str = "the kernel failed; this is a defect of the library";

/// Runs `work`; `Err` if it panicked. What it wrote is then thrown away with the run.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, ()> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| ())
}

/// An error with a text for people.
pub(super) fn refuse(text: &str) -> ort::Error {
    ort::Error::new(text)
}

/// Checks a condition between the shapes of inputs.
pub(super) fn require(holds: bool, text: &str) -> Result {
    if holds { Ok(()) } else { Err(refuse(text)) }
}

/// An input that the schema requires.
macro_rules! input {
    ($cx:expr, $i:expr, $t:ty => $value:ident) => {
        let $value = $cx.input($i)?.ok_or_else(|| $crate::runtime::kernels::op::missing($i))?;
        let $value = $value.try_extract_tensor::<$t>()?;
    };
}

/// An f32 output; `None` when the node leaves it out.
macro_rules! output {
    ($cx:expr, $i:expr, $dims:expr => $value:ident) => {
        let mut $value = $cx.output($i, $dims.to_vec())?;
        let $value = match &mut $value {
            Some(value) => Some(value.try_extract_tensor_mut::<f32>()?.1),
            None => None,
        };
    };
}
pub(super) use {input, output};

pub(super) fn missing(i: usize) -> ort::Error {
    refuse(&format!("input {i} is missing"))
}

/// Says to a race detector what the runtime sees to by means that it does not see: what was written
/// before parts are handed to other threads comes before what these do. Nothing in other builds.
mod handover {
    #[cfg(race_detector)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[cfg(race_detector)]
    static N: AtomicUsize = AtomicUsize::new(0);

    #[inline]
    pub(super) fn given() {
        #[cfg(race_detector)]
        N.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(super) fn taken() {
        #[cfg(race_detector)]
        N.load(Ordering::Acquire);
    }
}

/// Calls `work` once for each part, on the session's threads.
pub(super) fn each<T: Send>(
    cx: &ComputeContext,
    parts: Vec<T>,
    work: impl Fn(usize, T) + Sync + Send,
) -> Result {
    let slots: Vec<_> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    // Counted by ourselves: what the parts wrote is seen behind the count, whatever the runtime's
    // threads do, and a race detector sees that it is.
    let (n_done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    handover::given();
    cx.par_for(slots.len(), 0, |i| {
        // First of all, before anything of the caller's is looked at.
        handover::taken();
        let run = || {
            let part = slots.get(i).and_then(|slot| slot.lock().ok()?.take());
            if let Some(part) = part {
                work(i, part);
            }
        };
        if guarded(run).is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        n_done.fetch_add(1, Ordering::Release);
    })?;
    let all_done = n_done.load(Ordering::Acquire) == slots.len();
    require(all_done && !failed.load(Ordering::Relaxed), DEFECT)
}

/// Rows of `width` elements that make up about 16,000 elements of work, at least one.
pub(super) fn rows_per_part(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

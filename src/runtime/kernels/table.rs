//! The table of operators, and how each is described to the runtime.

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::{Shape, SymbolicDimensions, TensorElementType as Type, ValueType};

use super::kernel::{DEFECT, KernelAttributes, KernelResult, error, guarded};
use super::{attention, bf16, dropout, embedding, exchange, loss, norm, pointwise, single};

/// Shape of an output in terms of an input's.
#[derive(Clone, Copy)]
pub(super) enum Dims {
    /// That of input `i`.
    Like(usize),
    /// All but the last of input `i`.
    Outer(usize),
    /// Each axis as long as one of an input, or 1.
    Axes(&'static [Option<(usize, usize)>]),
    /// Rows of input 0 and columns of input 1, of their transposes where `transA`, `transB` say so.
    Product,
}

/// One operator with its kernel: a row of the table.
pub(super) struct KernelDef {
    pub(super) name: &'static str,
    inputs: &'static [Type],
    outputs: &'static [Dims],
    compute: fn(&ComputeContext, &KernelAttributes) -> KernelResult,
}

impl KernelDef {
    /// How many outputs a node has; none may be left out.
    #[cfg(test)]
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }
}

use Dims::{Axes, Like, Outer, Product};
use Type::{Float32 as F, Int64 as I};

/// All operators; outputs are f32 throughout.
pub(super) static ROWS: &[KernelDef] = &[
    KernelDef {
        name: "LayerNormGrad",
        inputs: &[F, F, F, F, F],
        outputs: &[Like(1), Like(2), Like(2)],
        compute: norm::layer_norm_grad,
    },
    KernelDef { name: "Gelu", inputs: &[F], outputs: &[Like(0)], compute: pointwise::gelu },
    KernelDef {
        name: "GeluTanh",
        inputs: &[F],
        outputs: &[Like(0)],
        compute: pointwise::gelu_tanh,
    },
    KernelDef {
        name: "GeluGrad",
        inputs: &[F, F],
        outputs: &[Like(1)],
        compute: pointwise::gelu_grad,
    },
    KernelDef {
        name: "GeluTanhGrad",
        inputs: &[F, F],
        outputs: &[Like(1)],
        compute: pointwise::gelu_tanh_grad,
    },
    KernelDef {
        name: "SoftmaxGrad",
        inputs: &[F, F],
        outputs: &[Like(1)],
        compute: pointwise::softmax_grad,
    },
    KernelDef {
        name: "CrossEntropy",
        inputs: &[F, I],
        outputs: &[Outer(0), Outer(0)],
        compute: loss::cross_entropy,
    },
    KernelDef {
        name: "CrossEntropyGrad",
        inputs: &[F, F, I, F],
        outputs: &[Like(1)],
        compute: loss::cross_entropy_grad,
    },
    KernelDef {
        name: "EmbeddingGrad",
        inputs: &[I, F, F],
        outputs: &[Like(2)],
        compute: embedding::embedding_grad,
    },
    KernelDef { name: "MatMulBf16", inputs: &[F, F], outputs: &[Product], compute: bf16::product },
    KernelDef {
        name: "GemmBf16",
        inputs: &[F, F, F],
        outputs: &[Product],
        compute: bf16::product_and_row,
    },
    KernelDef { name: "MatMulF32", inputs: &[F, F], outputs: &[Product], compute: single::product },
    KernelDef {
        name: "GemmF32",
        inputs: &[F, F, F],
        outputs: &[Product],
        compute: single::product_and_row,
    },
    KernelDef {
        name: "FusedAttention",
        inputs: &[F, F, F, F, I],
        outputs: &[
            Axes(&[Some((0, 0)), Some((0, 1)), Some((0, 2)), Some((2, 3))]),
            Axes(&[Some((0, 0)), Some((0, 2)), Some((0, 1)), None]),
            Axes(&[Some((0, 0)), Some((0, 2)), Some((0, 1)), None]),
        ],
        compute: attention::attention,
    },
    KernelDef {
        name: "FusedAttentionGrad",
        inputs: &[F, F, F, F, F, I, F, F, F],
        outputs: &[Like(1), Like(2), Like(3)],
        compute: attention::attention_grad,
    },
    KernelDef { name: "After", inputs: &[F, F], outputs: &[Like(0)], compute: pointwise::after },
    KernelDef {
        name: "Targets",
        inputs: &[F, I],
        outputs: &[Like(0), Outer(0)],
        compute: exchange::targets,
    },
    KernelDef { name: "Dropout", inputs: &[F, I], outputs: &[Like(0)], compute: dropout::dropout },
];

/// A row in the form of the binding crate.
pub(super) struct Op(pub(super) &'static KernelDef);

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

    fn create_kernel<'attr>(
        &self,
        info: &KernelContext<'attr>,
    ) -> KernelResult<BoxedKernel<'attr>> {
        let row = self.0;
        let attributes = KernelAttributes {
            ignore_index: info.get("ignore_index").unwrap_or(0),
            label_smoothing: info.get("label_smoothing").unwrap_or(0.0),
            ratio: info.get("ratio").unwrap_or(0.0),
            salt: info.get("salt").unwrap_or(0),
            trans_a: info.get::<i64>("transA").unwrap_or(0) != 0,
            trans_b: info.get::<i64>("transB").unwrap_or(0) != 0,
            alpha: info.get("alpha").unwrap_or(1.0),
            beta: info.get("beta").unwrap_or(1.0),
            scale: info.get("scale").unwrap_or(0.0),
            empty_is_zero: info.get::<i64>("empty_is_zero").unwrap_or(0) != 0,
        };
        Ok(Box::new(move |cx: &ComputeContext| {
            guarded(|| (row.compute)(cx, &attributes))
                .unwrap_or_else(|_| Err(error(DEFECT)))
                .map_err(|e| error(&format!("mmopt.{}: {}", row.name, e.message())))
        }))
    }

    fn infer_shape(&self, cx: &mut ShapeInferenceContext) -> KernelResult {
        guarded(|| infer(self.0, cx)).unwrap_or(Ok(()))
    }
}

/// An axis: its length, -1 where it is not known, and its name, if it has one.
type Axis = (i64, String);

/// Axes of an input. None where nothing is known of it: no operator here takes a scalar, so that is
/// what no axes mean.
fn axes_of(inputs: &[ValueType], i: usize) -> Option<Vec<Axis>> {
    let Some(ValueType::Tensor { shape, dimension_symbols, .. }) = inputs.get(i) else {
        return None;
    };
    let name = |at: usize| dimension_symbols.get(at).cloned().unwrap_or_default();
    let axes: Vec<Axis> = shape.iter().enumerate().map(|(at, &n)| (n, name(at))).collect();
    (!axes.is_empty()).then_some(axes)
}

fn infer(row: &KernelDef, cx: &mut ShapeInferenceContext) -> KernelResult {
    let inputs = cx.inputs();
    for (i, rule) in row.outputs.iter().enumerate() {
        let axes = match *rule {
            Like(from) => axes_of(&inputs, from),
            Outer(from) => axes_of(&inputs, from).map(|mut axes| {
                axes.pop();
                axes
            }),
            Axes(axes) => axes
                .iter()
                .map(|axis| match *axis {
                    Some((from, at)) => axes_of(&inputs, from)?.into_iter().nth(at),
                    None => Some((1, String::new())),
                })
                .collect(),
            Product => {
                let turned = |name: &str| cx.attr::<i64>(name).is_ok_and(|flag| flag != 0);
                let (at_a, at_b) = (usize::from(turned("transA")), usize::from(!turned("transB")));
                let axis = |i, at| axes_of(&inputs, i)?.into_iter().nth(at);
                axis(0, at_a).zip(axis(1, at_b)).map(|(m, n)| vec![m, n])
            }
        };
        // The runtime would take a -1 without a name for a length.
        let Some(axes) =
            axes.filter(|axes| axes.iter().all(|(n, name)| *n >= 0 || !name.is_empty()))
        else {
            continue;
        };
        let (dims, names): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
        let ty = ValueType::Tensor {
            ty: F,
            shape: Shape::new(dims),
            dimension_symbols: SymbolicDimensions::new(names),
        };
        cx.set_output(i, &ty)?;
    }
    Ok(())
}

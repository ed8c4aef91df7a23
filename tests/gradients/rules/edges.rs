//! Cases at the edges: no elements, one element, the same input twice, axes counted from the end;
//! and which rules lack such a case.

use super::case::{Case, REDUCTIONS, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(elementwise());
    cases.extend(reductions());
    cases.extend(products());
    cases.extend(shapes());
    cases.extend(indexing());
    cases.extend(norms());
    cases.extend(images());
    cases.extend(own());
    cases
}

/// What a rule's cases must show, where it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Broadcast,
    Repeated,
    One,
    Empty,
    FromEnd,
}

/// Operators whose inputs broadcast.
const BROADCAST: &[&str] = &[
    "Add", "Div", "Gemm", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "PRelu", "Pow", "Sub",
    "Sum", "Where",
];

/// Operators with axes, and the input that holds them where it is no attribute.
const AXES: &[(&str, Option<usize>)] = &[
    ("Concat", None),
    ("CumSum", Some(1)),
    ("Flatten", None),
    ("Gather", None),
    ("GatherElements", None),
    ("LayerNormalization", None),
    ("LogSoftmax", None),
    ("LpNormalization", None),
    ("Pad", Some(3)),
    ("RMSNormalization", None),
    ("ReduceL1", None),
    ("ReduceL2", None),
    ("ReduceLogSum", None),
    ("ReduceLogSumExp", None),
    ("ReduceMax", None),
    ("ReduceMean", None),
    ("ReduceMin", None),
    ("ReduceProd", None),
    ("ReduceSum", None),
    ("ReduceSumSquare", None),
    ("Resize", None),
    ("ScatterElements", None),
    ("Slice", Some(3)),
    ("Softmax", None),
    ("Split", None),
    ("Squeeze", Some(1)),
    ("TopK", None),
    ("Unsqueeze", Some(1)),
];

/// What has no such case.
pub const ABSENT: &[(&str, Variant)] = &[
    // Where a bound is the input itself there is no derivative.
    ("Clip", Variant::Repeated),
    // The value put in is a scalar, what it is put around is not.
    ("Pad", Variant::Repeated),
];

/// The variants that apply to an operator and that none of its cases shows.
pub fn missing(op: &str, cases: &[&Case]) -> Vec<Variant> {
    let any = |f: &dyn Fn(&Case) -> bool| cases.iter().any(|c| f(c));
    let one = |c: &Case| {
        let sizes = c.float_shapes();
        sizes.iter().any(|s| s.iter().product::<usize>() == 1)
            && sizes.iter().all(|s| s.iter().all(|&d| d == 1))
    };
    let mixed = |c: &Case| {
        let shapes = c.float_shapes();
        shapes.iter().any(|s| *s != shapes[0])
    };
    let axes = AXES.iter().find(|(name, _)| *name == op);
    let mut missing = Vec::new();
    let mut need = |variant, applies: bool, shown: bool| {
        if applies && !shown {
            missing.push(variant);
        }
    };
    need(Variant::Broadcast, BROADCAST.contains(&op), any(&mixed));
    need(Variant::Repeated, any(&|c| c.n_params() > 1), any(&|c| c.repeats()));
    need(Variant::One, true, any(&one));
    need(Variant::Empty, true, any(&|c| c.is_empty()));
    let slot = axes.and_then(|a| a.1);
    need(Variant::FromEnd, axes.is_some(), any(&|c| c.counts_from_end(slot)));
    missing
}

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [&[0, 2][..], &[1]] {
        for op in ["Acos", "Asin", "Atanh"] {
            cases.push(case(op).either(0.1, 0.7).x(shape));
        }
        cases.push(case("Acosh").positive(1.5, 2.5).x(shape));
        for op in ["Log", "Sqrt"] {
            cases.push(case(op).positive(0.5, 2.0).x(shape));
        }
        for op in [
            "Celu",
            "Elu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "LogSoftmax",
            "Relu",
            "Selu",
            "Sigmoid",
            "Softmax",
            "Softplus",
            "Softsign",
            "Tanh",
            "ThresholdedRelu",
        ] {
            cases.push(case(op).x(shape));
        }
        cases.push(case("Cast").int("to", 1).x(shape).narrow());
        cases.push(case("CastLike").x(shape).fixed(&[1], &[0.0]).opset(19));
        cases.push(case("Gelu").opset(20).x(shape));
        cases.push(case("Mish").opset(18).x(shape));
        cases.push(case("Swish").opset(24).x(shape));
        cases.push(case("Shrink").narrow().float("lambd", 0.2).x(shape));
        cases.push(case("Clip").x(shape).fixed(&[], &[-0.2]).fixed(&[], &[2.0]));
        cases.push(case("Mod").int("fmod", 1).x(shape).fixed(&[1], &[5.0]));
        cases.push(case("Pow").positive(0.5, 1.5).x(shape).x(&[1]));
        cases.push(case("PRelu").x(shape).x(&[1]));
        for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum"] {
            cases.push(case(op).x(shape).x(&[1]));
        }
    }
    cases.push(case("PRelu").x(&[4]).again(0));
    cases.push(case("Where").bools(&[1], &[1]).x(&[1]).x(&[1, 1]));
    cases
}

fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in REDUCTIONS {
        cases.push(case(op).positive(0.4, 1.6).x(&[0, 3]).axes(&[-1]));
        cases.push(case(op).positive(0.4, 1.6).x(&[0, 3]).axes(&[1]).int("keepdims", 0).opset(18));
    }
    for op in ["ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"] {
        cases.push(case(op).x(&[2, 0]).axes(&[1]));
    }
    for shape in [&[0, 3][..], &[3, 0], &[1, 1]] {
        cases.push(case("CumSum").x(shape).ints_of(&[], &[-1]));
    }
    cases
}

fn products() -> Vec<Case> {
    let sum = |text: &str| case("Einsum").text("equation", text);
    vec![
        case("MatMul").x(&[2, 0]).x(&[0, 3]),
        case("MatMul").x(&[0, 2, 3]).x(&[3, 2]),
        case("Gemm").x(&[0, 3]).x(&[3, 2]).x(&[2]),
        case("Gemm").x(&[2, 0]).x(&[0, 3]),
        case("Gemm").x(&[1, 1]).x(&[1, 1]).x(&[1]),
        sum("ij,jk->ik").x(&[0, 3]).x(&[3, 2]),
        sum("ij,jk->ik").x(&[2, 0]).x(&[0, 3]),
    ]
}

fn shapes() -> Vec<Case> {
    let split = |x: &[usize]| case("Split").int("axis", -1).x(x).outputs(2, &[0, 1]);
    let tail = |x: &[usize], s: i64, e: i64| case("Slice").x(x).ints(&[s]).ints(&[e]).ints(&[-1]);
    let mut cases = vec![
        case("Reshape").x(&[1]).ints(&[1, 1]),
        case("Expand").x(&[1, 0]).ints(&[2, 0]),
        case("Expand").x(&[1]).ints(&[1, 1]),
        case("Concat").int("axis", 0).x(&[1]).x(&[1]),
        case("Transpose").x(&[1, 1]),
        case("Identity").x(&[1]),
        split(&[0, 6]).ints(&[4, 2]),
        split(&[1]).ints(&[1, 0]),
        tail(&[0, 5], 1, 3),
        tail(&[1, 1], 0, 1),
        case("Pad").x(&[0, 3]).ints(&[0, 1, 0, 2]),
        case("Pad").x(&[0, 3]).ints(&[1, 0, 1, 0]),
        case("Pad").x(&[1]).ints(&[1, 1]),
        case("ReverseSequence").x(&[1, 1]).ints(&[1]),
        case("ReverseSequence").x(&[4, 0]).ints(&[]),
    ];
    for shape in [&[0, 3][..], &[1, 1]] {
        cases.push(case("Flatten").x(shape));
        cases.push(case("Tile").x(shape).ints(&[2, 1]));
        cases.push(case("Trilu").x(shape));
        cases.push(case("Unsqueeze").x(shape).ints(&[-1]));
    }
    cases.extend([case("Squeeze").x(&[1, 0]), case("Squeeze").x(&[1, 1]).ints(&[-1])]);
    for op in ["DepthToSpace", "SpaceToDepth"] {
        cases.push(case(op).int("blocksize", 2).x(&[0, 4, 2, 2]));
        cases.push(case(op).int("blocksize", 1).x(&[1, 1, 1, 1]));
    }
    cases
}

fn indexing() -> Vec<Case> {
    vec![
        case("Gather").x(&[1]).ints(&[0]),
        case("Gather").x(&[3, 0]).ints(&[2, 0]),
        case("GatherElements").x(&[1]).ints(&[0]),
        case("GatherElements").x(&[3]).ints(&[]),
        case("GatherND").x(&[1]).ints_of(&[1, 1], &[0]),
        case("GatherND").x(&[3, 0]).ints_of(&[2, 1], &[1, 2]),
        case("ScatterElements").x(&[1]).ints(&[0]).x(&[1]),
        case("ScatterElements").x(&[3, 2]).ints_of(&[0, 2], &[]).x(&[0, 2]),
        case("ScatterElements").x(&[3]).ints(&[2, 0, 1]).again(0),
        case("ScatterND").x(&[1]).ints_of(&[1, 1], &[0]).x(&[1]),
        case("ScatterND").x(&[4, 2]).ints_of(&[0, 1], &[]).x(&[0, 2]),
        case("ScatterND").x(&[3]).ints_of(&[3, 1], &[2, 0, 1]).again(0),
        case("TopK").x(&[1]).ints(&[1]).outputs(2, &[0]),
        case("TopK").x(&[0, 4]).ints(&[2]).int("axis", -1).outputs(2, &[0]),
    ]
}

fn norms() -> Vec<Case> {
    let batch = |x: &[usize], n: usize, mean: &[f64], variance: &[f64]| {
        let norm = case("BatchNormalization").x(x).x(&[n]);
        (norm, mean.to_vec(), variance.to_vec())
    };
    let given = |(norm, mean, variance): (Case, Vec<f64>, Vec<f64>), again: bool| {
        let n = mean.len();
        let norm = if again { norm.again(1) } else { norm.x(&[n]) };
        norm.fixed(&[n], &mean).fixed(&[n], &variance)
    };
    let mut cases = vec![
        given(batch(&[0, 2, 4], 2, &[0.2, -0.1], &[0.9, 1.4]), false),
        given(batch(&[1, 1, 1], 1, &[0.2], &[0.9]), false),
        given(batch(&[3, 2, 4], 2, &[0.2, -0.1], &[0.9, 1.4]), true),
        case("LayerNormalization").int("axis", -2).x(&[3, 4]).again(0),
        case("LayerNormalization").x(&[2, 4]).x(&[4]).again(1).narrow(),
        case("RMSNormalization").opset(23).x(&[4]).again(0),
        case("InstanceNormalization").x(&[2, 4, 3]).x(&[4]).again(1),
        case("GroupNormalization")
            .narrow()
            .opset(21)
            .int("num_groups", 2)
            .x(&[2, 4, 3])
            .x(&[4])
            .again(1),
        case("LpNormalization").int("axis", -1).x(&[2, 3]),
    ];
    for (rows, width) in [(0, 4), (1, 1)] {
        let norm = |op: &'static str| case(op).x(&[rows, width]).x(&[width]);
        cases.push(norm("LayerNormalization").x(&[width]));
        cases.push(norm("LayerNormalization").x(&[width]).narrow());
        cases.push(norm("RMSNormalization").opset(23));
        let norm = |op: &'static str| case(op).x(&[rows, width, 3.min(width)]);
        cases.push(norm("InstanceNormalization").x(&[width]).x(&[width]));
        let group = norm("GroupNormalization").narrow().opset(21).int("num_groups", 1);
        cases.push(group.x(&[width]).x(&[width]));
        cases.push(case("LpNormalization").x(&[rows, width]));
        cases.push(case("Dropout").x(&[rows, width]));
    }
    cases
}

fn images() -> Vec<Case> {
    let scaled = |x: &[usize]| {
        case("Resize").text("mode", "linear").x(x).none().singles(&[1.0, 1.0, 2.0, 1.5])
    };
    let mut cases = vec![
        case("Conv").x(&[0, 2, 4, 3]).x(&[3, 2, 2, 2]).x(&[3]),
        case("Conv").x(&[2, 2, 3, 3]).again(0),
        case("ConvTranspose").x(&[0, 2, 4, 3]).x(&[2, 3, 2, 2]).x(&[3]),
        case("ConvTranspose").x(&[2, 2, 2, 2]).again(0),
        case("ConvTranspose").x(&[1, 1, 1, 1]).x(&[1, 1, 1, 1]),
        scaled(&[0, 2, 4, 5]),
        scaled(&[1, 1, 1, 1]),
        case("Resize")
            .opset(18)
            .text("mode", "linear")
            .list("axes", &[-1, -2])
            .x(&[1, 2, 4, 6])
            .none()
            .none()
            .ints(&[6, 3]),
    ];
    for shape in [&[0usize, 2, 4, 4][..], &[1, 1, 1, 1]] {
        let kernel = [shape[2].div_ceil(2) as i64; 2];
        for op in ["AveragePool", "MaxPool", "LpPool"] {
            cases.push(case(op).list("kernel_shape", &kernel).x(shape));
        }
        for op in ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"] {
            cases.push(case(op).x(shape));
        }
    }
    cases
}

/// This library's own operators.
fn own() -> Vec<Case> {
    let own = |op: &'static str| case(op).domain("mmopt").narrow();
    let rows = |n: usize, c: usize| {
        own("CrossEntropy").int("ignore_index", -7).float("label_smoothing", 0.0).x(&[n, c])
    };
    let mut cases =
        vec![rows(0, 5).ints(&[]).outputs(2, &[0]), rows(1, 1).ints(&[0]).outputs(2, &[0])];
    for shape in [&[0, 9][..], &[1]] {
        cases.push(own("Gelu").x(shape));
        cases.push(own("GeluTanh").x(shape));
        let dropout = own("Dropout").float("ratio", 0.4).int("salt", 3);
        cases.push(dropout.x(shape).ints(&[17]));
    }
    let attention = |shape: &[usize]| super::layers::attention(0.4).x(shape);
    for shape in [[0, 3, 2, 4], [1, 1, 1, 1]] {
        cases.push(attention(&shape).x(&shape).x(&shape).singles(&[0.0]).ints(&[17]));
    }
    cases.push(attention(&[2, 3, 2, 4]).again(0).again(0).singles(&[0.0]).ints(&[17]));
    cases
}

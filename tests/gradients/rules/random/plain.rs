//! Arithmetic, activations, reductions, shapes and indexing.

use super::super::case::{Case, REDUCTIONS, Random, case};
use super::{Draw, narrower};

pub const DRAWS: &[(&[&str], Draw)] = &[
    (
        &[
            "Abs",
            "Asinh",
            "Atan",
            "Cos",
            "Cosh",
            "Erf",
            "Exp",
            "Identity",
            "Mish",
            "Neg",
            "Reciprocal",
            "Relu",
            "Sigmoid",
            "Sin",
            "Sinh",
            "Softplus",
            "Softsign",
            "Tan",
            "Tanh",
            "HardSwish",
        ],
        unary,
    ),
    (&["Acos", "Asin", "Atanh"], |op, r| case(op).either(0.1, 0.7).x(&r.shape((0, 3)))),
    (&["Acosh"], |op, r| case(op).positive(1.5, 2.5).x(&r.shape((0, 3)))),
    (&["Log", "Sqrt"], |op, r| case(op).positive(0.5, 2.0).x(&r.shape((0, 3)))),
    (&["Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu"], binary),
    (&["Max", "Min", "Sum", "Mean"], variadic),
    (&["Cast"], |op, r| case(op).int("to", 1).narrow().x(&r.shape((0, 3)))),
    (&["CastLike"], |op, r| case(op).opset(19).x(&r.shape((0, 3))).x(&r.shape((0, 2)))),
    (&["Clip"], clip),
    (&["Where"], pick),
    (&["Celu", "Elu", "LeakyRelu", "Swish", "ThresholdedRelu"], alpha),
    (&["HardSigmoid", "Selu", "Shrink"], two_numbers),
    (&["Gelu"], |op, r| {
        let case = case(op).opset(20).x(&r.shape((0, 3)));
        case.text("approximate", r.pick(&["none", "tanh"]))
    }),
    (&["Softmax", "LogSoftmax"], softmax),
    (&REDUCTIONS, reduction),
    (&["CumSum"], cumulative),
    (&["Gemm"], gemm),
    (&["MatMul"], matmul),
    (&["Einsum"], einsum),
    (&["Concat"], concat),
    (&["DepthToSpace", "SpaceToDepth"], blocks),
    (&["Expand", "Tile"], repeated),
    (&["Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Trilu"], reshaped),
    (&["Pad"], pad),
    (&["ReverseSequence"], reverse),
    (&["Slice"], slice),
    (&["Split"], split),
    (&["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"], indexed),
    (&["TopK"], top),
    (&["Compress"], |op, r| {
        let n = 1 + r.below(4);
        let flags: Vec<u8> = (0..n).map(|_| r.flag(0.6).into()).collect();
        case(op).x(&[n, 2]).bools(&[n], &flags).int("axis", r.pick(&[0, -2])).rewritten()
    }),
    (&["CenterCropPad"], |op, r| {
        let (a, b) = (r.between(1, 6), r.between(1, 6));
        case(op).opset(18).x(&[2, 4, 3]).ints(&[a, b]).list("axes", &[r.pick(&[0, -3]), 1])
    }),
];

fn unary(op: &'static str, r: &mut Random) -> Case {
    let case = case(op).either(0.3, 1.2).x(&r.shape((0, 3)));
    if op == "Mish" { case.opset(18) } else { case }
}

fn binary(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((0, 3));
    let other = narrower(&shape, r);
    let case = match op {
        "Pow" => case(op).positive(0.5, 1.5),
        "Mod" => case(op).int("fmod", 1),
        _ => case(op),
    };
    if op == "PRelu" || r.flag(0.5) { case.x(&shape).x(&other) } else { case.x(&other).x(&shape) }
}

fn variadic(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((0, 3));
    let mut case = case(op).x(&shape);
    for _ in 0..r.below(3) {
        case = case.x(&narrower(&shape, r));
    }
    case
}

fn clip(op: &'static str, r: &mut Random) -> Case {
    let (low, high) = (f64::from(r.number(-1.5, 1.0)), f64::from(r.number(-1.0, 1.5)));
    let case = case(op).x(&r.shape((0, 3)));
    let case = match r.below(3) {
        0 => case.none(),
        1 => case.fixed(&[], &[low]),
        _ => case.values(&[], &[low]),
    };
    match r.below(3) {
        0 => case,
        1 => case.fixed(&[], &[high]),
        _ => case.values(&[], &[high]),
    }
}

fn pick(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((0, 3));
    let mask = narrower(&shape, r);
    let flags: Vec<u8> = (0..mask.iter().product()).map(|_| r.flag(0.5).into()).collect();
    case(op).bools(&mask, &flags).x(&narrower(&shape, r)).x(&shape)
}

fn alpha(op: &'static str, r: &mut Random) -> Case {
    let case = case(op).x(&r.shape((0, 3)));
    let case = if op == "Swish" { case.opset(24) } else { case };
    match op {
        // In f32 differences are wide, and must not reach the threshold.
        "ThresholdedRelu" => case.float("alpha", r.number(0.05, 0.25)),
        _ if r.flag(0.3) => case,
        _ => case.float("alpha", r.number(0.1, 1.4)),
    }
}

fn two_numbers(op: &'static str, r: &mut Random) -> Case {
    let (first, second) = match op {
        "HardSigmoid" => ("alpha", "beta"),
        "Selu" => ("alpha", "gamma"),
        _ => ("lambd", "bias"),
    };
    let x = case(op).x(&r.shape((0, 3)));
    // In f32 differences are wide, and must not reach a kink.
    match op {
        "HardSigmoid" if r.flag(0.3) => x,
        "HardSigmoid" => x.float(first, r.number(0.05, 0.25)).float(second, r.number(0.42, 0.58)),
        "Shrink" => {
            let bound = if r.flag(0.8) { r.number(0.05, 0.25) } else { r.number(1.8, 2.2) };
            x.float(first, bound).float(second, r.number(-0.7, 0.7)).narrow()
        }
        _ => x.float(first, r.number(0.1, 1.3)).float(second, r.number(0.1, 1.3)),
    }
}

fn softmax(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 4));
    let case = case(op).x(&shape).loose(1000.0);
    if r.flag(0.2) { case } else { case.int("axis", r.axis(shape.len())) }
}

fn reduction(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 4));
    let mut case = case(op).positive(0.4, 1.6).x(&shape).opset(r.pick(&[17, 18, 21]));
    if r.flag(0.8) {
        let axes = r.axes(shape.len());
        case = if axes.is_empty() { case } else { case.axes(&axes) };
    }
    if r.flag(0.7) {
        case = case.int("keepdims", r.between(0, 1));
    }
    if r.flag(0.3) && (case.opset >= 18 || op == "ReduceSum") {
        case = case.int("noop_with_empty_axes", r.between(0, 1));
    }
    // The runtime computes some of these in f32.
    case.loose(if op == "ReduceL2" { 1e4 } else { 1.0 })
}

fn cumulative(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    let case = case(op).x(&shape).ints_of(&[], &[r.axis(shape.len())]);
    case.int("exclusive", r.between(0, 1)).int("reverse", r.between(0, 1))
}

fn gemm(op: &'static str, r: &mut Random) -> Case {
    let (m, k, n) = (1 + r.below(4), 1 + r.below(4), 1 + r.below(4));
    let (ta, tb) = (r.flag(0.5), r.flag(0.5));
    let mut case = case(op).int("transA", ta.into()).int("transB", tb.into());
    case = case.x(&if ta { [k, m] } else { [m, k] }).x(&if tb { [n, k] } else { [k, n] });
    if r.flag(0.7) {
        case = case.x(&narrower(&[m, n], r));
        case = case.float("beta", r.number(-1.5, 1.5));
    }
    if r.flag(0.6) { case.float("alpha", r.number(-1.5, 1.5)) } else { case }
}

fn matmul(op: &'static str, r: &mut Random) -> Case {
    let (m, k, n) = (1 + r.below(4), 1 + r.below(4), 1 + r.below(4));
    let lead = r.shape((0, 2));
    let (a, b) = ([&narrower(&lead, r)[..], &[m, k]].concat(), [&lead[..], &[k, n]].concat());
    match r.below(5) {
        0 => case(op).x(&[k]).x(&b),
        1 => case(op).x(&a).x(&[k]),
        _ => case(op).x(&a).x(&b),
    }
}

/// Sums of products of two or three tensors over random letters.
fn einsum(op: &'static str, r: &mut Random) -> Case {
    let sizes = [2, 3, 1, 4];
    let letters = ['i', 'j', 'k', 'l'];
    let (mut terms, mut shapes, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..1 + r.below(3) {
        let term: Vec<usize> = (0..4).filter(|_| r.flag(0.5)).collect();
        shapes.push(term.iter().map(|&i| sizes[i]).collect::<Vec<usize>>());
        terms.push(term.iter().map(|&i| letters[i]).collect::<String>());
        used.extend(term);
    }
    used.sort_unstable();
    used.dedup();
    let result: String = used.iter().filter(|_| r.flag(0.6)).map(|&i| letters[i]).collect();
    let equation = format!("{}->{result}", terms.join(","));
    shapes.iter().fold(case(op).text("equation", &equation), |c, s| c.x(s))
}

fn concat(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    let axis = r.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let mut case = case(op).int("axis", axis);
    for _ in 0..1 + r.below(3) {
        let mut part = shape.clone();
        part[at] = 1 + r.below(3);
        case = case.x(&part);
    }
    case
}

fn blocks(op: &'static str, r: &mut Random) -> Case {
    let (b, c, h, w) = (1 + r.below(3), 1 + r.below(2), 1 + r.below(3), 1 + r.below(3));
    let shape = if op == "DepthToSpace" { [2, c * b * b, h, w] } else { [2, c, h * b, w * b] };
    let case = case(op).int("blocksize", b as i64).x(&shape);
    // The other one has an order only since opset 28, which no kernel knows.
    if op == "DepthToSpace" { case.text("mode", r.pick(&["DCR", "CRD"])) } else { case }
}

fn repeated(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    if op == "Tile" {
        let times: Vec<i64> = shape.iter().map(|_| r.between(1, 3)).collect();
        return case(op).x(&shape).ints(&times);
    }
    let wide: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    case(op).x(&narrower(&shape, r)).ints(&wide)
}

fn reshaped(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((2, 4));
    let rank = shape.len();
    let x = || case(op).x(&shape);
    match op {
        "Flatten" => x().int("axis", r.axis(rank)),
        "Reshape" => x().ints(r.pick(&[&[-1][..], &[0, -1], &[-1, 1], &[0, 0, -1]])),
        "Squeeze" => {
            let at = r.below(rank + 1);
            let mut shape = shape;
            shape.insert(at, 1);
            let at = at as i64 - if r.flag(0.5) { rank as i64 + 1 } else { 0 };
            case(op).x(&shape).ints(&[at])
        }
        "Unsqueeze" => x().ints(&[r.axis(rank + 1)]),
        "Transpose" => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            (1..rank).for_each(|i| perm.swap(i, r.below(i + 1)));
            x().list("perm", &perm)
        }
        _ => x().ints_of(&[], &[r.between(-3, 3)]).int("upper", r.between(0, 1)),
    }
}

fn pad(op: &'static str, r: &mut Random) -> Case {
    let mode = r.pick(&["constant", "reflect", "edge", "wrap"]);
    let shape: Vec<usize> = r.shape((1, 3)).iter().map(|d| d + 2).collect();
    let axes: Vec<i64> = r.axes(shape.len());
    let (named, n) = if axes.is_empty() { (false, shape.len()) } else { (true, axes.len()) };
    let least = if mode == "constant" || mode == "edge" { -1 } else { 0 };
    let pads: Vec<i64> = (0..2 * n).map(|_| r.between(least, 2)).collect();
    let case = case(op).opset(19).text("mode", mode).x(&shape).ints(&pads);
    let value = mode == "constant" && r.flag(0.5);
    let case = match (value, named) {
        (false, false) => return case,
        (true, _) => case.values(&[], &[0.7]),
        _ => case.none(),
    };
    if named { case.ints(&axes) } else { case }
}

fn reverse(op: &'static str, r: &mut Random) -> Case {
    let (n, batch) = (1 + r.below(4), 1 + r.below(4));
    let lengths: Vec<i64> = (0..batch).map(|_| r.between(1, n as i64)).collect();
    if r.flag(0.5) {
        return case(op).x(&[n, batch, 2]).ints(&lengths);
    }
    case(op).int("batch_axis", 0).int("time_axis", 1).x(&[batch, n, 2]).ints(&lengths)
}

fn slice(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    let (mut starts, mut ends, mut axes, mut steps) = (vec![], vec![], vec![], vec![]);
    for (axis, &n) in shape.iter().enumerate() {
        if r.flag(0.7) {
            let n = n as i64;
            let (from, to) = (r.between(-n, n - 1), r.pick(&[n, i64::MAX, n - 1, -1]));
            let back = r.flag(0.3);
            let step = r.between(1, 2);
            let axis = axis as i64 - if r.flag(0.3) { shape.len() as i64 } else { 0 };
            axes.push(axis);
            steps.push(if back { -step } else { step });
            starts.push(from);
            ends.push(if back { i64::MIN } else { to });
        }
    }
    case(op).x(&shape).ints(&starts).ints(&ends).ints(&axes).ints(&steps)
}

fn split(op: &'static str, r: &mut Random) -> Case {
    let mut shape = r.shape((1, 3));
    let axis = r.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let n = 1 + r.below(3);
    if r.flag(0.3) {
        shape[at] = n * 2 + r.below(2).min(n - 1);
        let case = case(op).opset(18).int("num_outputs", n as i64).int("axis", axis).x(&shape);
        return case.outputs(n, &[n - 1]);
    }
    let sizes: Vec<i64> = (0..n).map(|_| r.between(1, 3)).collect();
    shape[at] = sizes.iter().sum::<i64>() as usize;
    let used: Vec<usize> = (0..n).filter(|_| r.flag(0.8)).collect();
    let used = if used.is_empty() { vec![0] } else { used };
    case(op).int("axis", axis).x(&shape).ints(&sizes).outputs(n, &used)
}

fn indexed(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    let rank = shape.len();
    let axis = r.axis(rank);
    let at = axis.rem_euclid(rank as i64) as usize;
    match op {
        "Gather" => {
            let of = r.shape((0, 2));
            let ids = r.indices(of.iter().product(), shape[at]);
            case(op).int("axis", axis).x(&shape).ints_of(&of, &ids)
        }
        "GatherElements" | "ScatterElements" => {
            let mut of: Vec<usize> = shape.iter().map(|&d| 1 + r.below(d)).collect();
            let adds = op == "ScatterElements" && r.flag(0.6);
            if op == "GatherElements" || adds {
                of[at] = 1 + r.below(4);
            }
            let n = of.iter().product();
            let mut ids = r.indices(n, shape[at]);
            if op == "GatherElements" {
                return case(op).int("axis", axis).x(&shape).ints_of(&of, &ids);
            }
            if !adds {
                // Each place at most once: which of several is last is not told.
                let inner: usize = of[at + 1..].iter().product();
                ids = (0..n).map(|i| ((i / inner) % of[at]) as i64).collect();
            }
            let case = case(op).opset(18).int("axis", axis).x(&shape).ints_of(&of, &ids).x(&of);
            case.text("reduction", if adds { "add" } else { "none" })
        }
        _ => {
            let k = 1 + r.below(rank);
            let n = if op == "GatherND" || r.flag(0.5) { 1 + r.below(4) } else { 1 };
            let mut ids = Vec::new();
            for _ in 0..n {
                for &size in &shape[..k] {
                    ids.push(r.axis(size));
                }
            }
            let case = case(op).opset(18).x(&shape).ints_of(&[n, k], &ids);
            if op == "GatherND" {
                return case;
            }
            let updates = [&[n], &shape[k..]].concat();
            case.text("reduction", if n > 1 { "add" } else { "none" }).x(&updates)
        }
    }
}

fn top(op: &'static str, r: &mut Random) -> Case {
    let shape = r.shape((1, 3));
    let axis = r.axis(shape.len());
    let n = shape[axis.rem_euclid(shape.len() as i64) as usize] as i64;
    let case = case(op).x(&shape).ints(&[r.between(1, n)]).int("axis", axis);
    case.int("largest", r.between(0, 1)).outputs(2, &[0])
}

//! Norms, attention, losses, recurrent layers and transforms.

use super::super::case::{Case, Random, case};
use super::Draw;

pub const DRAWS: &[(&[&str], Draw)] = &[
    (&["LayerNormalization", "RMSNormalization"], norm),
    (&["BatchNormalization"], batch_norm),
    (&["GroupNormalization"], |op, r| {
        let (groups, each) = (1 + r.below(3), 1 + r.below(2));
        let n = groups * each;
        let case = case(op).opset(21).narrow().int("num_groups", groups as i64).loose(5.0);
        case.float("epsilon", r.number(0.01, 0.3)).x(&[2, n, 2, 3]).x(&[n]).x(&[n])
    }),
    (&["InstanceNormalization"], |op, r| {
        let n = 1 + r.below(3);
        case(op).float("epsilon", r.number(0.01, 0.3)).x(&[2, n, 5]).x(&[n]).x(&[n])
    }),
    (&["LpNormalization"], |op, r| {
        let shape = r.shape((1, 3));
        case(op).int("p", r.between(1, 2)).int("axis", r.axis(shape.len())).x(&shape)
    }),
    (&["Dropout"], |op, r| {
        let case = case(op).x(&r.shape((1, 3)));
        if r.flag(0.5) { case } else { case.fixed(&[], &[0.0]).bools(&[], &[1]) }
    }),
    (&["LRN"], |op, r| {
        let case =
            case(op).int("size", r.pick(&[1, 3, 5])).x(&[2, 1 + r.below(5), 2, 2]).loose(3.0);
        case.float("alpha", r.number(0.1, 1.0)).float("beta", r.number(0.3, 1.0)).float("bias", 1.2)
    }),
    (&["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"], loss),
    (&["Attention"], attention),
    (&["RNN", "GRU", "LSTM"], recurrent),
    (&["DFT"], transform),
    (&["STFT"], |op, r| {
        let (n, width) = (6 + r.below(5), 2 + r.below(4));
        let case = case(op)
            .x(&[2, n, 1])
            .ints_of(&[], &[r.between(1, 3)])
            .int("onesided", r.between(0, 1));
        case.x(&[width]).ints_of(&[], &[width as i64]).loose(20.0)
    }),
];

fn norm(op: &'static str, r: &mut Random) -> Case {
    let mut shape = r.shape((1, 3));
    *shape.last_mut().unwrap() += 2;
    let axis = r.axis(shape.len());
    let at = axis.rem_euclid(shape.len() as i64) as usize;
    let opset = if op == "RMSNormalization" { 23 } else { 17 };
    let case = case(op).opset(opset).int("axis", axis).float("epsilon", r.number(0.01, 0.3));
    let case = case.x(&shape).x(&shape[at..]);
    if op == "LayerNormalization" && r.flag(0.7) { case.x(&shape[at..]) } else { case }
}

fn batch_norm(op: &'static str, r: &mut Random) -> Case {
    let n = 1 + r.below(3);
    let shape = [&[3, n][..], &r.shape((0, 2))].concat();
    let numbers = |r: &mut Random, low, high| -> Vec<f64> {
        (0..n).map(|_| f64::from(r.number(low, high))).collect()
    };
    let (mean, variance) = (numbers(r, -0.5, 0.5), numbers(r, 0.5, 1.5));
    let case = case(op).x(&shape).x(&[n]).x(&[n]).float("epsilon", r.number(0.01, 0.3));
    if r.flag(0.5) {
        let case = case.int("training_mode", 1).float("momentum", r.number(0.1, 0.9));
        return case.fixed(&[n], &mean).fixed(&[n], &variance).outputs(3, &[0]);
    }
    case.values(&[n], &mean).values(&[n], &variance)
}

fn loss(op: &'static str, r: &mut Random) -> Case {
    let (n, classes) = (1 + r.below(4), 1 + r.below(4));
    let places = r.shape((0, 2));
    let count = n * places.iter().product::<usize>();
    let labels: Vec<i64> = (0..count).map(|_| r.between(0, classes as i64 - 1)).collect();
    let case = case(op).x(&[&[n, classes], &places[..]].concat());
    let mut case = case.ints_of(&[&[n], &places[..]].concat(), &labels);
    if r.flag(0.5) {
        let weights: Vec<f64> = (0..classes).map(|_| f64::from(r.number(0.3, 2.0))).collect();
        case = case.fixed(&[classes], &weights);
    }
    let reduction = r.pick(&["none", "sum", "mean"]);
    // The mean over nothing is NaN.
    if r.flag(0.5) && reduction != "mean" {
        case = case.int("ignore_index", r.between(0, classes as i64 - 1));
    }
    case.text("reduction", reduction).loose(200.0)
}

fn attention(op: &'static str, r: &mut Random) -> Case {
    let (kv, times) = (1 + r.below(2), 1 + r.below(2));
    let (queries, keys, d) = (1 + r.below(3), 1 + r.below(4), 2 + r.below(3));
    let q = kv * times;
    let mut case = case(op).opset(23).loose(2000.0);
    let flat = r.flag(0.4);
    if flat {
        case = case.int("q_num_heads", q as i64).int("kv_num_heads", kv as i64);
        case = case.x(&[2, queries, q * d]).x(&[2, keys, kv * d]).x(&[2, keys, kv * d]);
    } else {
        case = case.x(&[2, q, queries, d]).x(&[2, kv, keys, d]).x(&[2, kv, keys, d]);
    }
    if r.flag(0.4) {
        case = case.x(&[queries, keys]);
    }
    if r.flag(0.4) {
        case = case.float("scale", r.number(0.2, 1.0));
    }
    if r.flag(0.3) {
        case = case.float("softcap", r.number(0.5, 2.0));
    }
    if r.flag(0.4) { case.int("is_causal", 1) } else { case }
}

fn recurrent(op: &'static str, r: &mut Random) -> Case {
    let (steps, batch, width, hidden) =
        (1 + r.below(4), 1 + r.below(3), 1 + r.below(3), 1 + r.below(3));
    let (gates, n) = match op {
        "RNN" => (1, 2),
        "GRU" => (3, 2),
        _ => (4, 3),
    };
    let direction = r.pick(&["forward", "reverse", "bidirectional"]);
    let both = if direction == "bidirectional" { 2 } else { 1 };
    let rows = gates * hidden;
    let mut case = case(op).int("hidden_size", hidden as i64).text("direction", direction);
    case = case.either(0.1, 0.6).x(&[steps, batch, width]);
    case = case.x(&[both, rows, width]).x(&[both, rows, hidden]);
    case = if r.flag(0.7) { case.x(&[both, 2 * rows]) } else { case.none() };
    case = if r.flag(0.5) {
        let lengths: Vec<i32> = (0..batch).map(|_| r.between(1, steps as i64) as i32).collect();
        case.ints32_of(&[batch], &lengths)
    } else {
        case.none()
    };
    case = if r.flag(0.5) { case.x(&[both, batch, hidden]) } else { case.none() };
    if op == "LSTM" {
        case = if r.flag(0.5) { case.x(&[both, batch, hidden]) } else { case.none() };
        case = if r.flag(0.4) { case.x(&[both, 3 * hidden]) } else { case };
        case = if r.flag(0.2) { case.int("input_forget", 1) } else { case };
    }
    if op == "GRU" && r.flag(0.5) {
        case = case.int("linear_before_reset", 1);
    }
    // The runtime's RNN is f32 alone, whose differences are too wide for kinks.
    if op != "RNN" && r.flag(0.2) {
        case = case.float("clip", r.number(0.3, 0.9));
    }
    let used: Vec<usize> = (0..n).filter(|_| r.flag(0.6)).collect();
    let used = if used.is_empty() { vec![r.below(n)] } else { used };
    case.outputs(n, &used)
}

fn transform(op: &'static str, r: &mut Random) -> Case {
    let (inverse, parts) = (r.flag(0.5), 1 + r.below(2));
    let onesided = !inverse && parts == 1 && r.flag(0.5);
    let mut shape = r.shape((2, 3));
    shape.push(parts);
    let case = case(op).int("inverse", inverse.into()).int("onesided", onesided.into()).loose(20.0);
    let case = case.x(&shape);
    let axis = r.below(shape.len() - 1) as i64;
    let length = r.flag(0.5).then(|| r.between(1, 6));
    let case = length.map_or_else(|| case.clone().none(), |n| case.clone().ints_of(&[], &[n]));
    if r.flag(0.5) {
        return case.int("axis", axis);
    }
    let axis = if r.flag(0.5) { axis } else { axis - shape.len() as i64 };
    case.opset(20).ints_of(&[], &[axis])
}

//! Cases of recurrent layers, which are rewritten to a `Scan`. Each runs in f32, where the result
//! is compared with the runtime's own kernel, and in f64, where the runtime has none.

use super::case::{Case, case};

/// Steps, sequences, inputs, hidden units.
const SIZES: [usize; 4] = [4, 3, 2, 5];

/// The layer with its weights, over one direction or both.
fn layer(op: &'static str, directions: usize) -> Case {
    let [steps, batch, width, hidden] = SIZES;
    let rows = gates(op) * hidden;
    let case = case(op).int("hidden_size", hidden as i64).either(0.1, 0.6);
    case.x(&[steps, batch, width]).x(&[directions, rows, width]).x(&[directions, rows, hidden])
}

fn gates(op: &str) -> usize {
    match op {
        "RNN" => 1,
        "GRU" => 3,
        _ => 4,
    }
}

/// The same with bias, lengths (if given) and initial states.
fn full(op: &'static str, directions: usize, lengths: Option<&[i32]>) -> Case {
    let [_, batch, _, hidden] = SIZES;
    let mut case = layer(op, directions).x(&[directions, 2 * gates(op) * hidden]);
    case = match lengths {
        Some(lengths) => case.ints32_of(&[batch], lengths),
        None => case.none(),
    };
    case = case.x(&[directions, batch, hidden]);
    if op == "LSTM" { case.x(&[directions, batch, hidden]) } else { case }
}

fn n_outputs(op: &str) -> usize {
    if op == "LSTM" { 3 } else { 2 }
}

/// The batch first, which the runtime knows no kernel for.
pub fn batch_first() -> Vec<Case> {
    let first = |op: &'static str| {
        let [steps, batch, width, hidden] = SIZES;
        let rows = gates(op) * hidden;
        let case = case(op).int("hidden_size", hidden as i64).int("layout", 1).either(0.1, 0.6);
        let case = case.x(&[batch, steps, width]).x(&[1, rows, width]).x(&[1, rows, hidden]);
        let case = case.x(&[1, 2 * rows]).ints32_of(&[batch], &[4, 1, 3]).x(&[batch, 1, hidden]);
        let n = n_outputs(op);
        let case = if op == "LSTM" { case.x(&[batch, 1, hidden]) } else { case };
        case.outputs(n, &(0..n).collect::<Vec<_>>())
    };
    ["RNN", "GRU", "LSTM"].map(first).to_vec()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in ["RNN", "GRU", "LSTM"] {
        let n = n_outputs(op);
        let all: Vec<usize> = (0..n).collect();
        cases.push(layer(op, 1));
        cases.push(layer(op, 1).outputs(n, &[n - 1]));
        for direction in ["forward", "reverse", "bidirectional"] {
            let directions = if direction == "bidirectional" { 2 } else { 1 };
            cases.push(full(op, directions, None).text("direction", direction).outputs(n, &all));
            let ragged = full(op, directions, Some(&[4, 1, 3]));
            cases.push(ragged.text("direction", direction).outputs(n, &all));
        }
        if op != "RNN" {
            cases.push(full(op, 1, None).float("clip", 0.35).seed(5).outputs(n, &all));
        }
        // One step; one unit.
        let rows = gates(op);
        let one = case(op).int("hidden_size", 1).x(&[1, 1, 1]).x(&[1, rows, 1]).x(&[1, rows, 1]);
        cases.push(one.outputs(n, &all));
    }
    cases.extend(variants());
    cases.extend(activations());
    cases.into_iter().map(Case::fine).collect()
}

fn variants() -> Vec<Case> {
    let [_, batch, _, hidden] = SIZES;
    let gru =
        |lengths| full("GRU", 2, lengths).text("direction", "bidirectional").outputs(2, &[0, 1]);
    let peepholes = |lengths| {
        let case = full("LSTM", 2, lengths).x(&[2, 3 * hidden]).text("direction", "bidirectional");
        case.outputs(3, &[0, 1, 2])
    };
    vec![
        gru(None).int("linear_before_reset", 1),
        gru(Some(&[2, 4, 3])).int("linear_before_reset", 1),
        layer("GRU", 1).int("linear_before_reset", 1),
        peepholes(None),
        peepholes(Some(&[2, 4, 3])),
        peepholes(None).float("clip", 0.35),
        full("LSTM", 1, None).int("input_forget", 1).outputs(3, &[0, 1, 2]),
        layer("LSTM", 1).none().none().none().x(&[1, batch, hidden]),
    ]
}

fn activations() -> Vec<Case> {
    let mut cases = Vec::new();
    let smooth = ["Tanh", "Sigmoid", "Affine", "ScaledTanh", "Softplus"];
    let kinked = ["Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu", "Softsign"];
    for name in smooth.into_iter().chain(kinked) {
        let (alpha, beta): (&[f32], &[f32]) = match name {
            "Affine" | "ScaledTanh" | "HardSigmoid" => (&[0.7], &[0.3]),
            "Elu" | "LeakyRelu" | "ThresholdedRelu" => (&[0.05], &[]),
            _ => (&[], &[]),
        };
        let with = |case: Case| match (alpha, beta) {
            ([], _) => case,
            (_, []) => case.floats("activation_alpha", alpha),
            _ => case.floats("activation_alpha", alpha).floats("activation_beta", beta),
        };
        let lstm = full("LSTM", 1, None).texts("activations", &["Sigmoid", name, "Tanh"]);
        let lstm = lstm.outputs(3, &[0, 1, 2]);
        if ["Elu", "HardSigmoid", "LeakyRelu"].contains(&name) {
            cases.push(lstm.clone());
        }
        cases.push(with(lstm));
        // The runtime has no f64 kernel.
        if smooth.contains(&name) {
            let rnn = full("RNN", 1, None).texts("activations", &[name]).outputs(2, &[0, 1]);
            cases.push(with(rnn));
        }
    }
    // Each takes what it needs from the lists of parameters, in order.
    let two = ["HardSigmoid", "Affine", "LeakyRelu", "Softplus"];
    let gru = full("GRU", 2, None).text("direction", "bidirectional").texts("activations", &two);
    let gru = gru.floats("activation_alpha", &[0.3, 0.8, 0.2]);
    cases.push(gru.floats("activation_beta", &[0.4, 0.1]).outputs(2, &[0, 1]));
    let three = ["Sigmoid", "Softsign", "Tanh", "HardSigmoid", "Tanh", "Softsign"];
    let lstm = full("LSTM", 2, None).text("direction", "bidirectional");
    cases.push(lstm.texts("activations", &three).outputs(3, &[0, 1, 2]));
    cases
}

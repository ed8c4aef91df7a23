//! Cases of operators that are rewritten to others.

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(attention());
    cases.extend(rotary());
    // The runtime computes the softmax of f64 in f32.
    let mut cases: Vec<Case> = cases.into_iter().map(|c| c.rewritten().loose(200.0)).collect();
    cases.extend(losses().into_iter().map(Case::rewritten));
    cases
}

fn losses() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"] {
        let rows = || case(op).x(&[4, 3]).ints(&[2, 0, 1, 2]);
        let weights = [0.5, 1.0, 2.0];
        cases.push(rows());
        cases.push(case(op).x(&[4, 3]).ints32_of(&[4], &[2, 0, 1, 2]));
        for reduction in ["none", "sum", "mean"] {
            cases.push(rows().text("reduction", reduction));
            cases.push(rows().fixed(&[3], &weights).text("reduction", reduction));
            let some = rows().fixed(&[3], &weights).int("ignore_index", 2);
            cases.push(some.text("reduction", reduction));
        }
        let ignored = case(op).x(&[4, 3]).ints(&[2, -100, 1, 0]).int("ignore_index", -100);
        cases.push(ignored);
        let places = [0, 1, 2, 2, 1, 0, 0, 2, 1, 1, 1, 0];
        cases.push(case(op).x(&[2, 3, 2, 3]).ints_of(&[2, 2, 3], &places).int("ignore_index", 1));
        cases.push(case(op).x(&[1, 1]).ints(&[0]));
    }
    let both = case("SoftmaxCrossEntropyLoss").x(&[2, 3]).ints(&[2, 0]);
    cases.push(both.outputs(2, &[0, 1]));
    cases
}

fn attention() -> Vec<Case> {
    let heads = |q: usize, kv: usize| {
        case("Attention").opset(23).x(&[2, q, 3, 4]).x(&[2, kv, 5, 4]).x(&[2, kv, 5, 6])
    };
    let mask = [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1];
    let fixed: Vec<f64> = (0..15).map(|i| f64::from(i % 4) - 1.5).collect();
    vec![
        heads(2, 2),
        heads(4, 2),
        heads(2, 1).float("scale", 0.3),
        heads(2, 2).float("softcap", 1.2),
        heads(2, 2).bools(&[3, 5], &mask),
        heads(2, 2).fixed(&[3, 5], &fixed),
        heads(2, 2).x(&[1, 2, 3, 5]),
        heads(2, 2).int("is_causal", 1),
        heads(2, 2).bools(&[3, 5], &mask).int("is_causal", 1),
        heads(2, 2).fixed(&[3, 5], &fixed).int("is_causal", 1),
        heads(2, 2).none().x(&[2, 2, 2, 4]).x(&[2, 2, 2, 6]),
        heads(2, 2).none().x(&[2, 2, 2, 4]).x(&[2, 2, 2, 6]).int("is_causal", 1),
        heads(2, 2).none().x(&[2, 2, 2, 4]).x(&[2, 2, 2, 6]).outputs(3, &[0, 1, 2]),
        heads(2, 2).outputs(4, &[0, 3]),
        heads(2, 2).int("qk_matmul_output_mode", 3).int("is_causal", 1).outputs(4, &[0, 3]),
        heads(2, 2).x(&[3, 5]).int("qk_matmul_output_mode", 2).opset(24).outputs(4, &[0, 3]),
        case("Attention")
            .opset(23)
            .int("q_num_heads", 4)
            .int("kv_num_heads", 2)
            .x(&[2, 3, 16])
            .x(&[2, 5, 8])
            .x(&[2, 5, 8]),
    ]
}

fn rotary() -> Vec<Case> {
    let at = |shape: &[usize]| case("RotaryEmbedding").opset(23).x(shape);
    let ids = [4, 0, 2, 1, 1, 3];
    vec![
        at(&[2, 2, 3, 8]).x(&[5, 4]).x(&[5, 4]).ints_of(&[2, 3], &ids),
        at(&[2, 2, 3, 8]).x(&[2, 3, 4]).x(&[2, 3, 4]),
        at(&[2, 2, 3, 8]).x(&[5, 4]).x(&[5, 4]).ints_of(&[2, 3], &ids).int("interleaved", 1),
        at(&[2, 3, 16]).x(&[5, 4]).x(&[5, 4]).ints_of(&[2, 3], &ids).int("num_heads", 2),
        at(&[2, 2, 3, 8])
            .x(&[5, 2])
            .x(&[5, 2])
            .ints_of(&[2, 3], &ids)
            .int("rotary_embedding_dim", 4),
    ]
}

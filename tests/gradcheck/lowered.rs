//! Cases of operators that are rewritten to others.

use crate::case::{Case, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(attention());
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
        case("Attention")
            .opset(23)
            .int("q_num_heads", 4)
            .int("kv_num_heads", 2)
            .x(&[2, 3, 16])
            .x(&[2, 5, 8])
            .x(&[2, 5, 8]),
    ]
}

//! The same in standard operators: with the whole matrix of scores.

use super::super::functions::{Body, dropout_mask, int, ints};

/// What nodes of either operator name.
pub const ATTRIBUTES: &[&str] = &["scale", "ratio", "salt", "empty_is_zero"];

/// Probabilities, and the factor of each by dropout.
struct Probabilities {
    p: String,
    factor: String,
}

/// `x` with its axes reordered.
fn turned(b: &mut Body, x: &str, perm: &[i64]) -> String {
    b.add("Transpose", &[x], vec![ints("perm", perm)])
}

/// The same, as an output.
fn put_turned(b: &mut Body, to: &str, x: &str) {
    b.put(to, "Transpose", &[x], vec![ints("perm", &[0, 2, 1, 3])]);
}

fn product(b: &mut Body, x: &str, y: &str) -> String {
    b.add("MatMul", &[x, y], vec![])
}

/// scale · q kᵀ + mask, [batch, heads, queries, keys].
fn scores(b: &mut Body) -> String {
    let scale = b.attribute("scale", true);
    let q = b.mul("q", &scale);
    let (q, kt) = (turned(b, &q, &[0, 2, 1, 3]), turned(b, "k", &[0, 2, 3, 1]));
    let scores = product(b, &q, &kt);
    b.plus(&scores, "mask")
}

/// Where a query's row counts as zeros: where it is empty, if the attribute says so.
fn is_zero(b: &mut Body, is_empty: &str) -> String {
    let flag = b.attribute("empty_is_zero", false);
    let flag = b.add("Cast", &[&flag], vec![int("to", 9)]);
    b.add("And", &[is_empty, &flag], vec![])
}

/// From e^(score − max) and 1 / Σ.
fn probabilities(b: &mut Body, exp: &str, is_zero: &str) -> Probabilities {
    let (p, zero) = (b.mul(exp, "inverse"), b.float(0.0));
    let p = b.add("Where", &[is_zero, &zero, &p], vec![]);
    let mask = dropout_mask(b, &p);
    let (one, ratio) = (b.float(1.0), b.attribute("ratio", true));
    let rest = b.sub(&one, &ratio);
    let factor = b.add("Div", &[&mask, &rest], vec![]);
    Probabilities { p, factor }
}

pub fn attention(b: &mut Body) {
    let scores = scores(b);
    let max = b.reduce("ReduceMax", &scores, -1, true);
    let shifted = b.sub(&scores, &max);
    let exp = b.add("Exp", &[&shifted], vec![]);
    let sum = b.reduce("ReduceSum", &exp, -1, true);
    let is_nan = b.add("IsNaN", &[&sum], vec![]);
    let is_zero = is_zero(b, &is_nan);
    let (zero, one) = (b.float(0.0), b.float(1.0));
    let inverse = b.add("Div", &[&one, &sum], vec![]);
    b.put("max", "Where", &[&is_zero, &zero, &max], vec![]);
    b.put("inverse", "Where", &[&is_zero, &zero, &inverse], vec![]);
    let Probabilities { p, factor } = probabilities(b, &exp, &is_zero);
    let kept = b.mul(&p, &factor);
    let v = turned(b, "v", &[0, 2, 1, 3]);
    let mixed = product(b, &kept, &v);
    put_turned(b, "o", &mixed);
}

pub fn attention_grad(b: &mut Body) {
    let scores = scores(b);
    let shifted = b.sub(&scores, "max");
    let exp = b.add("Exp", &[&shifted], vec![]);
    let zero = b.float(0.0);
    let is_empty = b.add("Equal", &["inverse", &zero], vec![]);
    let is_zero = is_zero(b, &is_empty);
    let Probabilities { p, factor } = probabilities(b, &exp, &is_zero);
    let kept = b.mul(&p, &factor);
    let kept_t = turned(b, &kept, &[0, 1, 3, 2]);
    let (dy, vt) = (turned(b, "do", &[0, 2, 1, 3]), turned(b, "v", &[0, 2, 3, 1]));
    let dv = product(b, &kept_t, &dy);
    put_turned(b, "dv", &dv);
    let dp = product(b, &dy, &vt);
    let dp = b.mul(&dp, &factor);
    let along = b.mul("do", "o");
    let delta = b.reduce("ReduceSum", &along, -1, true);
    let delta = turned(b, &delta, &[0, 2, 1, 3]);
    let slope = b.sub(&dp, &delta);
    let ds = b.mul(&p, &slope);
    let scale = b.attribute("scale", true);
    let ds = b.mul(&ds, &scale);
    let (q, k) = (turned(b, "q", &[0, 2, 1, 3]), turned(b, "k", &[0, 2, 1, 3]));
    let dq = product(b, &ds, &k);
    put_turned(b, "dq", &dq);
    let ds_t = turned(b, &ds, &[0, 1, 3, 2]);
    let dk = product(b, &ds_t, &q);
    put_turned(b, "dk", &dk);
}

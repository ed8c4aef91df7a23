//! The rules of sharing as matrices: row i says how member i's gradient is made of all members'
//! gradients. Everything is computed from inner products, in f64.

use crate::optim::options::ShareRule;

/// What a rule sees of a group's active members; all slices have `k` or `k`² elements.
pub(crate) struct Members<'a> {
    /// Normalised model weights.
    pub weights: &'a [f64],
    /// Model of each member.
    pub models: &'a [usize],
    /// Inner products of the scaled gradients, symmetric.
    pub gram: &'a [f64],
    /// Influence by model, `n_models`² numbers, row = influenced; empty under other rules.
    pub influence: &'a [f64],
    /// Number of models.
    pub n_models: usize,
}

/// Whether a rule needs the inner products of the gradients.
pub(crate) fn needs_products(rule: ShareRule) -> bool {
    matches!(rule, ShareRule::Gated | ShareRule::Project)
}

/// Whether a rule needs a full matrix per group.
pub(crate) fn needs_matrix(rule: ShareRule) -> bool {
    needs_products(rule) || matches!(rule, ShareRule::Influence)
}

/// Writes the k × k matrix of a dense rule; `work` has k² elements.
pub(crate) fn matrix(
    rule: ShareRule,
    alpha: f64,
    g: &Members<'_>,
    work: &mut [f64],
    out: &mut [f64],
) {
    let k = g.weights.len();
    match rule {
        ShareRule::Gated => (0..k).for_each(|i| gated(i, alpha, g, &mut out[i * k..(i + 1) * k])),
        ShareRule::Project => project(alpha, g, work, out),
        _ => (0..k).for_each(|i| influenced(i, g, &mut out[i * k..(i + 1) * k])),
    }
}

/// gᵢ ← (1−α) gᵢ + α Σ ŵⱼ cᵢⱼ (‖gᵢ‖/‖gⱼ‖) gⱼ / Σ ŵⱼ cᵢⱼ with cᵢⱼ = max(0, cos), cᵢᵢ = 1.
fn gated(i: usize, alpha: f64, g: &Members<'_>, row: &mut [f64]) {
    let k = g.weights.len();
    let square = |j: usize| g.gram[j * k + j];
    row.fill(0.0);
    row[i] = 1.0;
    if square(i) <= 0.0 {
        return;
    }
    let gate = |j: usize| {
        if j == i {
            return 1.0;
        }
        let length = (square(i) * square(j)).sqrt();
        if length > 0.0 { (g.gram[i * k + j] / length).clamp(0.0, 1.0) } else { 0.0 }
    };
    let total: f64 = (0..k).map(|j| g.weights[j] * gate(j)).sum();
    if total <= 0.0 {
        return;
    }
    for (j, out) in row.iter_mut().enumerate() {
        let c = gate(j);
        let ratio = if c > 0.0 { (square(i) / square(j)).sqrt() } else { 0.0 };
        let own = if i == j { 1.0 - alpha } else { 0.0 };
        *out = own + alpha * g.weights[j] * c * ratio / total;
    }
}

/// For each i, in the members' order: gᵢ′ loses its component along every gⱼ that it conflicts
/// with; then gᵢ ← (1−α) gᵢ′ + α Σ ŵⱼ gⱼ′ / Σ ŵⱼ.
fn project(alpha: f64, g: &Members<'_>, work: &mut [f64], out: &mut [f64]) {
    let k = g.weights.len();
    for i in 0..k {
        let row = &mut work[i * k..(i + 1) * k];
        row.fill(0.0);
        row[i] = 1.0;
        for j in (0..k).filter(|&j| j != i) {
            let product: f64 = (0..k).map(|l| row[l] * g.gram[l * k + j]).sum();
            let square = g.gram[j * k + j];
            if product < 0.0 && square > 0.0 {
                row[j] -= product / square;
            }
        }
    }
    let total: f64 = g.weights.iter().sum();
    let alpha = if total > 0.0 { alpha } else { 0.0 };
    for i in 0..k {
        for l in 0..k {
            let mean: f64 = (0..k).map(|j| g.weights[j] * work[j * k + l]).sum();
            let mean = if total > 0.0 { mean / total } else { 0.0 };
            out[i * k + l] = (1.0 - alpha) * work[i * k + l] + alpha * mean;
        }
    }
}

/// gᵢ ← (1 − Σⱼ Aᵢⱼ) gᵢ + Σⱼ Aᵢⱼ gⱼ over the members of other models.
fn influenced(i: usize, g: &Members<'_>, row: &mut [f64]) {
    let mut rest = 1.0;
    for (j, out) in row.iter_mut().enumerate() {
        let other = g.models[i] != g.models[j];
        *out = if other { g.influence[g.models[i] * g.n_models + g.models[j]] } else { 0.0 };
        rest -= *out;
    }
    row[i] = rest;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a rule to explicit gradients.
    fn mixed(rule: ShareRule, weights: &[f64], influence: &[f64], g: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let k = g.len();
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let gram: Vec<f64> = (0..k * k).map(|i| dot(&g[i / k], &g[i % k])).collect();
        let models: Vec<usize> = (0..k).collect();
        let members = Members { weights, models: &models, gram: &gram, influence, n_models: k };
        let (mut work, mut out) = (vec![0.0; k * k], vec![0.0; k * k]);
        matrix(rule, 0.2, &members, &mut work, &mut out);
        let element = |i: usize, e: usize| (0..k).map(|j| out[i * k + j] * g[j][e]).sum();
        (0..k).map(|i| (0..g[0].len()).map(|e| element(i, e)).collect()).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn a_gated_peer_counts_only_as_far_as_it_agrees() {
        let g = [vec![1.0, 0.0], vec![-3.0, 0.0], vec![0.0, 2.0]];
        let out = mixed(ShareRule::Gated, &[0.4, 0.3, 0.3], &[], &g);
        // Opposite and orthogonal peers: nothing changes.
        out.iter().zip(&g).for_each(|(o, g)| close(o, g));
        let g = [vec![1.0, 0.0], vec![10.0, 0.0]];
        let out = mixed(ShareRule::Gated, &[0.5, 0.5], &[], &g);
        // Agreeing peers keep their own lengths.
        close(&out[0], &[1.0, 0.0]);
        close(&out[1], &[10.0, 0.0]);
        let g = [vec![1.0, 0.0], vec![3.0, 3.0]];
        let out = mixed(ShareRule::Gated, &[0.5, 0.5], &[], &g);
        let c = 0.5f64.sqrt();
        let unit = [c, c];
        let x = 0.8 + 0.2 * (1.0 + c * unit[0]) / (1.0 + c);
        close(&out[0], &[x, 0.2 * c * unit[1] / (1.0 + c)]);
    }

    #[test]
    fn projected_gradients_do_not_conflict() {
        let g = [vec![1.0, 0.0], vec![-1.0, 1.0]];
        let out = mixed(ShareRule::Project, &[0.5, 0.5], &[], &g);
        // g0' = (0.5, 0.5), g1' = (0, 1); then 0.8 own + 0.2 mean.
        close(&out[0], &[0.8 * 0.5 + 0.2 * 0.25, 0.8 * 0.5 + 0.2 * 0.75]);
        close(&out[1], &[0.2 * 0.25, 0.8 + 0.2 * 0.75]);
    }

    #[test]
    fn influence_is_asymmetric() {
        let g = [vec![1.0], vec![5.0]];
        let a = [0.0, 0.1, 0.0, 0.0];
        let out = mixed(ShareRule::Influence, &[0.5, 0.5], &a, &g);
        close(&out[0], &[0.9 + 0.5]);
        close(&out[1], &[5.0]);
    }
}

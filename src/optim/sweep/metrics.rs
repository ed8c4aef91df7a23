//! What the paper plots: how much the models' gradients agree (the gradient flow) and how far
//! their parameters are apart, per group and per pair of models.

use crate::optim::plan::Plan;
use crate::optim::sweep::tiling::Tiling;
use serde_json::{Value, json};

/// Metrics of the last step that `metrics_every` named. Models are in the plan's order, members
/// in their group's.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The step they belong to; 0 before the first.
    pub step: u64,
    /// Cosine between the gradients of two models over the views that both have in groups,
    /// n × n; 1 on the diagonal, 0 where nothing is in common.
    pub cosine: Vec<f64>,
    /// Root mean square difference of those views' values, n × n.
    pub distance: Vec<f64>,
    /// Per group of the plan.
    pub groups: Vec<GroupMetrics>,
}

/// Metrics of one group, k × k over its members.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupMetrics {
    /// Cosine between members' gradients; 0 where one has none.
    pub cosine: Vec<f64>,
    /// L2 distance between members' values.
    pub distance: Vec<f64>,
}

fn cosine(product: f64, a: f64, b: f64) -> f64 {
    let length = (a * b).sqrt();
    if length > 0.0 { (product / length).clamp(-1.0, 1.0) } else { 0.0 }
}

impl Metrics {
    /// Zeros for every group of a plan.
    pub(in crate::optim) fn blank(plan: &Plan) -> Self {
        let n = plan.models().len();
        let group =
            |k: usize| GroupMetrics { cosine: vec![0.0; k * k], distance: vec![0.0; k * k] };
        Self {
            step: 0,
            cosine: vec![0.0; n * n],
            distance: vec![0.0; n * n],
            groups: plan.groups().iter().map(|g| group(g.members.len())).collect(),
        }
    }

    /// One JSON object, with the names of the plan that was measured.
    pub(in crate::optim) fn to_json(&self, plan: &Plan) -> Value {
        let rows = |matrix: &[f64], n: usize| -> Vec<Vec<f64>> {
            matrix.chunks(n.max(1)).map(<[f64]>::to_vec).collect()
        };
        let named = plan.to_json();
        let groups = self.groups.iter().zip(plan.groups()).enumerate();
        let groups = groups.map(|(i, (group, planned))| {
            let n = planned.members.len();
            json!({
                "name": planned.name,
                "members": named["groups"][i]["members"],
                "cosine": rows(&group.cosine, n),
                "distance": rows(&group.distance, n),
            })
        });
        let n = plan.models().len();
        json!({
            "step": self.step,
            "models": plan.models(),
            "cosine": rows(&self.cosine, n),
            "distance": rows(&self.distance, n),
            "groups": groups.collect::<Vec<_>>(),
        })
    }

    /// Cosines from the inner products of the gradients, `n` models.
    pub(in crate::optim) fn measure_gradients(
        &mut self,
        step: u64,
        n: usize,
        tiling: &Tiling,
        gram: &[f64],
    ) {
        self.step = step;
        self.cosine.fill(0.0);
        let mut squares = vec![0.0; 2 * n * n];
        let (own, other) = squares.split_at_mut(n * n);
        for (g, into) in self.groups.iter_mut().enumerate() {
            let (b, at) = (tiling.groups[g], tiling.gram_offsets[g]);
            let gram = |i: usize, j: usize| gram[at + i.min(j) * b.n + i.max(j)];
            for i in 0..b.n {
                for j in 0..b.n {
                    into.cosine[i * b.n + j] = cosine(gram(i, j), gram(i, i), gram(j, j));
                    let model = |i: usize| tiling.members[b.first + i].model;
                    let pair = model(i) * n + model(j);
                    if model(i) != model(j) {
                        self.cosine[pair] += gram(i, j);
                        own[pair] += gram(i, i);
                        other[pair] += gram(j, j);
                    }
                }
            }
        }
        for pair in 0..n * n {
            let same = pair / n == pair % n;
            let value = cosine(self.cosine[pair], own[pair], other[pair]);
            self.cosine[pair] = if same { 1.0 } else { value };
        }
    }

    /// Distances from the inner products of the values, `n` models.
    pub(in crate::optim) fn measure_values(&mut self, n: usize, tiling: &Tiling, gram: &[f64]) {
        self.distance.fill(0.0);
        let mut elements = vec![0.0; n * n];
        for (g, into) in self.groups.iter_mut().enumerate() {
            let (b, at) = (tiling.groups[g], tiling.gram_offsets[g]);
            let gram = |i: usize, j: usize| gram[at + i.min(j) * b.n + i.max(j)];
            for i in 0..b.n {
                for j in 0..b.n {
                    let square = (gram(i, i) + gram(j, j) - 2.0 * gram(i, j)).max(0.0);
                    into.distance[i * b.n + j] = square.sqrt();
                    let member = |i: usize| &tiling.members[b.first + i];
                    let pair = member(i).model * n + member(j).model;
                    self.distance[pair] += square;
                    elements[pair] += member(i).view.len() as f64;
                }
            }
        }
        for (pair, d) in self.distance.iter_mut().enumerate() {
            let same = pair / n == pair % n;
            *d = if same || elements[pair] == 0.0 { 0.0 } else { (*d / elements[pair]).sqrt() };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::optim::{ModelSpec, Optimizer, Options, ParamSpec};
    use crate::tensor::DType;

    #[test]
    fn known_gradients_and_values() {
        let name = "layer.0.attention.self.query.weight";
        let spec = |n: &str| ModelSpec::new(n, vec![ParamSpec::new(name, &[2, 2])]);
        let options =
            Options { metrics_every: 2, learning_rate: 0.0, n_threads: 1, ..Options::default() };
        let mut o = Optimizer::new(options, vec![spec("a"), spec("b"), spec("c")]).unwrap();
        let gradients = [[1.0f32, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0]];
        for (m, g) in gradients.iter().enumerate() {
            o.bind_owned(m, DType::F32).unwrap();
            o.gradient_mut(m, 0).unwrap().as_mut_slice().unwrap().copy_from_slice(g);
            o.values_mut(m, 0).unwrap().fill(m as f32);
        }
        o.step().unwrap();
        assert_eq!(o.metrics().unwrap().step, 0);
        o.step().unwrap();
        let metrics = o.metrics().unwrap();
        assert_eq!(metrics.step, 2);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(metrics.cosine[1], 0.5f64.sqrt());
        close(metrics.cosine[2], -1.0);
        close(metrics.groups[0].cosine[2 * 3 + 1], -(0.5f64.sqrt()));
        close(metrics.distance[2], 2.0);
        close(metrics.groups[0].distance[1], 2.0); // four elements, one apart
    }
}

//! What the paper plots: how much the models' gradients agree (the gradient flow) and how far
//! their parameters are apart, per group and per pair of models.

use crate::error::Result;
use crate::optim::optimizer::Optimizer;
use crate::optim::sweep::Item;

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

impl Optimizer {
    /// The newest metrics; `None` unless `metrics_every` is set.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Empty metrics for the present plan, if they are wanted.
    pub(in crate::optim) fn blank_metrics(&self) -> Option<Metrics> {
        let n = self.models.len();
        let group =
            |k: usize| GroupMetrics { cosine: vec![0.0; k * k], distance: vec![0.0; k * k] };
        (self.options.metrics_every > 0).then(|| Metrics {
            step: 0,
            cosine: vec![0.0; n * n],
            distance: vec![0.0; n * n],
            groups: self.plan.groups().iter().map(|g| group(g.members.len())).collect(),
        })
    }

    /// Takes the gradients' inner products, which `inspect` has just made.
    pub(in crate::optim) fn measure_gradients(&mut self, step: u64) {
        let Some(metrics) = &mut self.metrics else { return };
        metrics.step = step;
        metrics.cosine.fill(0.0);
        let n = self.models.len();
        let mut squares = vec![0.0; 2 * n * n];
        let (own, other) = squares.split_at_mut(n * n);
        for (g, into) in metrics.groups.iter_mut().enumerate() {
            let (b, at) = (self.layout.bundles[g], self.layout.squares[g]);
            let gram = |i: usize, j: usize| self.gram[at + i.min(j) * b.n + i.max(j)];
            for i in 0..b.n {
                for j in 0..b.n {
                    into.cosine[i * b.n + j] = cosine(gram(i, j), gram(i, i), gram(j, j));
                    let part = |i: usize| self.layout.parts[b.first + i];
                    let pair = part(i).model * n + part(j).model;
                    if part(i).model != part(j).model {
                        metrics.cosine[pair] += gram(i, j);
                        own[pair] += gram(i, i);
                        other[pair] += gram(j, j);
                    }
                }
            }
        }
        for pair in 0..n * n {
            let same = pair / n == pair % n;
            let value = cosine(metrics.cosine[pair], own[pair], other[pair]);
            metrics.cosine[pair] = if same { 1.0 } else { value };
        }
    }

    /// Reads the groups' values once and takes their distances.
    pub(in crate::optim) fn measure_values(&mut self) -> Result<()> {
        if self.metrics.is_none() {
            return Ok(());
        }
        self.value_products()?;
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        metrics.distance.fill(0.0);
        let n = self.models.len();
        let mut elements = vec![0.0; n * n];
        for (g, into) in metrics.groups.iter_mut().enumerate() {
            let (b, at) = (self.layout.bundles[g], self.layout.squares[g]);
            let gram = |i: usize, j: usize| self.gram[at + i.min(j) * b.n + i.max(j)];
            for i in 0..b.n {
                for j in 0..b.n {
                    let square = (gram(i, i) + gram(j, j) - 2.0 * gram(i, j)).max(0.0);
                    into.distance[i * b.n + j] = square.sqrt();
                    let part = |i: usize| self.layout.parts[b.first + i];
                    let pair = part(i).model * n + part(j).model;
                    metrics.distance[pair] += square;
                    elements[pair] += part(i).view.len() as f64;
                }
            }
        }
        for (pair, d) in metrics.distance.iter_mut().enumerate() {
            let same = pair / n == pair % n;
            *d = if same || elements[pair] == 0.0 { 0.0 } else { (*d / elements[pair]).sqrt() };
        }
        Ok(())
    }

    /// Inner products of the members' values into the partial sums, then the Gram matrices.
    fn value_products(&mut self) -> Result<()> {
        for (lane, own) in self.lanes.iter_mut().zip(&mut self.own) {
            lane.g = lane.p.cast();
            lane.g_type = crate::tensor::DType::F32;
            own.active = !lane.p.is_null();
        }
        self.run_products()?;
        self.gram.fill(0.0);
        for (item, &at) in self.layout.grouped.iter().zip(&self.layout.partials) {
            if let Item::Tile { bundle, .. } = *item {
                let (b, to) = (self.layout.bundles[bundle], self.layout.squares[bundle]);
                for i in 0..b.n * b.n {
                    self.gram[to + i] += self.partials[at + i];
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{ModelSpec, Options, ParamSpec};
    use crate::tensor::DType;

    #[test]
    fn known_gradients_and_values() {
        let name = "layer.0.attention.self.query.weight";
        let spec = |n: &str| ModelSpec::new(n, vec![ParamSpec::new(name, &[2, 2])]);
        let options =
            Options { metrics_every: 2, learning_rate: 0.0, threads: 1, ..Options::default() };
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

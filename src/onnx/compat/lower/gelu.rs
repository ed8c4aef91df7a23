//! GELU as exporters write it in basic operators: found by its formula and fused to one node, so
//! that its gradient is one node too and the runtime keeps no intermediate values.
//!
//! Erf form: x/2 · (1 + erf(x/√2)). Tanh form: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).
//! The factor 1/2 may stand at x, at the sum, or at the end.

use crate::error::Result;
use crate::onnx::{Graph, MMOPT_DOMAIN, Node, NodeId, ValueId};
use crate::tensor::DType;

/// Replaces the last node of each GELU in f32. The other nodes stay, since others may read their
/// results; pruning removes the unused ones.
pub(super) fn lower(graph: &mut Graph) -> Result<()> {
    if !graph.opsets.contains_key(MMOPT_DOMAIN) {
        return Ok(());
    }
    let found: Vec<(NodeId, &str, ValueId)> = {
        let view = View { graph, producers: graph.producers() };
        graph.node_ids().filter_map(|id| view.gelu(id).map(|(op, x)| (id, op, x))).collect()
    };
    for (id, op, x) in found {
        let node = graph.node_mut(id);
        node.op = op.into();
        node.domain = MMOPT_DOMAIN.into();
        node.inputs = vec![Some(x)];
        node.attributes.clear();
    }
    Ok(())
}

struct View<'g> {
    graph: &'g Graph,
    producers: Vec<Option<(NodeId, usize)>>,
}

impl View<'_> {
    /// The GELU that ends at node `id`: which, and of what.
    fn gelu(&self, id: NodeId) -> Option<(&'static str, ValueId)> {
        let y = self.graph.node(id).output(0)?;
        let halved = |v| self.scaled(v).filter(|(_, c)| near(*c, 0.5)).map(|(v, _)| v);
        let whole = halved(y);
        let (a, b) = self.operands(whole.unwrap_or(y), "Mul")?;
        [(a, b), (b, a)].into_iter().find_map(|(x, sum)| {
            if whole.is_some() {
                return self.of(x, sum);
            }
            let at_x = halved(x).and_then(|x| self.of(x, sum));
            at_x.or_else(|| self.of(x, halved(sum)?))
        })
    }

    /// Whether `sum` is 1 + erf(x/√2) or 1 + tanh(…) of the same f32 `x`.
    fn of(&self, x: ValueId, sum: ValueId) -> Option<(&'static str, ValueId)> {
        let value = self.graph.value(x);
        if value.ty.dtype != Some(DType::F32) || value.ty.shape.as_ref()?.is_empty() {
            return None;
        }
        let (a, b) = self.operands(sum, "Add")?;
        let curve = [(a, b), (b, a)]
            .into_iter()
            .find_map(|(v, one)| self.constant(one).filter(|c| near(*c, 1.0)).map(|_| v))?;
        let node = self.node(curve)?;
        let (argument, scale) = self.scaled(node.input(0)?)?;
        match node.op.as_str() {
            "Erf" if argument == x && near(scale, std::f64::consts::FRAC_1_SQRT_2) => {
                Some(("Gelu", x))
            }
            "Tanh" if near(scale, 0.797_884_56) && self.is_cubic(argument, x) => {
                Some(("GeluTanh", x))
            }
            _ => None,
        }
    }

    /// Whether `v` is x + 0.044715 x³.
    fn is_cubic(&self, v: ValueId, x: ValueId) -> bool {
        let Some((a, b)) = self.operands(v, "Add") else { return false };
        let cube = if a == x { b } else { a };
        (a == x || b == x)
            && self.scaled(cube).is_some_and(|(v, c)| near(c, 0.044_715) && self.is_cube(v, x))
    }

    fn is_cube(&self, v: ValueId, x: ValueId) -> bool {
        if let Some(node) = self.node(v).filter(|n| n.op == "Pow") {
            let power = node.input(1).and_then(|p| self.constant(p));
            return node.input(0) == Some(x) && power.is_some_and(|p| near(p, 3.0));
        }
        let square = |v| self.operands(v, "Mul") == Some((x, x));
        self.operands(v, "Mul").is_some_and(|(a, b)| (a == x && square(b)) || (b == x && square(a)))
    }

    /// `v` as a value times a constant; by Mul or Div.
    fn scaled(&self, v: ValueId) -> Option<(ValueId, f64)> {
        if let Some((a, b)) = self.operands(v, "Div") {
            return self.constant(b).map(|c| (a, 1.0 / c));
        }
        let (a, b) = self.operands(v, "Mul")?;
        let right = self.constant(b).map(|c| (a, c));
        right.or_else(|| self.constant(a).map(|c| (b, c)))
    }

    fn operands(&self, v: ValueId, op: &str) -> Option<(ValueId, ValueId)> {
        let node = self.node(v).filter(|n| n.op == op)?;
        Some((node.input(0)?, node.input(1)?))
    }

    /// The node of ONNX's own that makes `v`.
    fn node(&self, v: ValueId) -> Option<&Node> {
        let (id, _) = self.producers.get(v.index()).copied().flatten()?;
        Some(self.graph.node(id)).filter(|n| n.domain.is_empty())
    }

    /// The number behind a constant with one element.
    fn constant(&self, v: ValueId) -> Option<f64> {
        let data = self.graph.initializer(v).filter(|d| d.len() == 1)?;
        data.to_f64s().ok()?.first().copied()
    }
}

/// Equal to the digits that exporters write.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * b.abs()
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

    use super::*;
    use crate::onnx::{TensorData, ValueType};

    /// A graph over `x` and a function to write its nodes with.
    fn check(
        write: impl Fn(&mut Graph, ValueId, &dyn Fn(&mut Graph, f32) -> ValueId) -> ValueId,
    ) -> Option<String> {
        let mut graph = Graph::new("g", 17);
        graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
        let x = graph.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
        let number = |g: &mut Graph, c: f32| {
            g.add_initializer("", TensorData::from_slice(&[], &[c]).unwrap()).unwrap()
        };
        let y = write(&mut graph, x, &number);
        graph.add_output(y);
        lower(&mut graph).unwrap();
        graph.prune();
        let fused = graph.nodes().iter().find(|n| n.domain == MMOPT_DOMAIN)?;
        assert_eq!((graph.nodes().len(), fused.input(0), fused.output(0)), (1, Some(x), Some(y)));
        Some(fused.op.clone())
    }

    #[test]
    fn spellings_are_found() {
        // As the older exporter writes it.
        let older = check(|g, x, c| {
            let (root, one, half) = (c(g, SQRT_2), c(g, 1.0), c(g, 0.5));
            let scaled = g.op("Div", &[x, root], []);
            let erf = g.op("Erf", &[scaled], []);
            let sum = g.op("Add", &[erf, one], []);
            let product = g.op("Mul", &[x, sum], []);
            g.op("Mul", &[product, half], [])
        });
        assert_eq!(older.as_deref(), Some("Gelu"));
        // As the current one does.
        let current = check(|g, x, c| {
            let (root, one, half) = (c(g, FRAC_1_SQRT_2), c(g, 1.0), c(g, 0.5));
            let halved = g.op("Mul", &[x, half], []);
            let scaled = g.op("Mul", &[x, root], []);
            let erf = g.op("Erf", &[scaled], []);
            let sum = g.op("Add", &[erf, one], []);
            g.op("Mul", &[halved, sum], [])
        });
        assert_eq!(current.as_deref(), Some("Gelu"));
        let inside = check(|g, x, c| {
            let (root, one, two) = (c(g, SQRT_2), c(g, 1.0), c(g, 2.0));
            let scaled = g.op("Div", &[x, root], []);
            let erf = g.op("Erf", &[scaled], []);
            let sum = g.op("Add", &[one, erf], []);
            let halved = g.op("Div", &[sum, two], []);
            g.op("Mul", &[halved, x], [])
        });
        assert_eq!(inside.as_deref(), Some("Gelu"));
    }

    fn tanh_form(power: f32) -> Option<String> {
        check(|g, x, c| {
            let (three, a, one, half) = (c(g, power), c(g, 0.044_715), c(g, 1.0), c(g, 0.5));
            let scale = c(g, 0.797_884_6);
            let cube = g.op("Pow", &[x, three], []);
            let cube = g.op("Mul", &[cube, a], []);
            let sum = g.op("Add", &[x, cube], []);
            let u = g.op("Mul", &[sum, scale], []);
            let tanh = g.op("Tanh", &[u], []);
            let outer = g.op("Add", &[tanh, one], []);
            let halved = g.op("Mul", &[x, half], []);
            g.op("Mul", &[halved, outer], [])
        })
    }

    #[test]
    fn the_tanh_form_is_found() {
        assert_eq!(tanh_form(3.0).as_deref(), Some("GeluTanh"));
    }

    #[test]
    fn what_is_no_gelu_stays() {
        assert_eq!(tanh_form(2.0), None);
        let other_root = check(|g, x, c| {
            let (root, one, half) = (c(g, 1.5), c(g, 1.0), c(g, 0.5));
            let scaled = g.op("Div", &[x, root], []);
            let erf = g.op("Erf", &[scaled], []);
            let sum = g.op("Add", &[erf, one], []);
            let product = g.op("Mul", &[x, sum], []);
            g.op("Mul", &[product, half], [])
        });
        assert_eq!(other_root, None);
        let not_halved = check(|g, x, c| {
            let (root, one) = (c(g, SQRT_2), c(g, 1.0));
            let scaled = g.op("Div", &[x, root], []);
            let erf = g.op("Erf", &[scaled], []);
            let sum = g.op("Add", &[erf, one], []);
            g.op("Mul", &[x, sum], [])
        });
        assert_eq!(not_halved, None);
    }
}

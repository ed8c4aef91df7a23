//! Mending what exporters do to parameters. They merge parameters that happened to be equal when
//! the model was exported (fresh norm gains are all 1, fresh biases all 0), which ties what the
//! model keeps apart; and they write a shared embedding twice, which unties what it shares.
//!
//! *merged*: one initializer that stands for several parameters. *twins*: two initializers with
//! the same values, possibly transposed.

use std::collections::HashMap;

use super::parameters::{all_equal, find_parameters};
use crate::error::Result;
use crate::onnx::{Attribute, Graph, TensorData, ValueId};

/// An initializer that very likely stands for several parameters.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The initializer.
    pub value: ValueId,
    /// Its name.
    pub name: String,
    /// What reads it: (node, input slot), as messages name the node.
    pub uses: Vec<(String, usize)>,
}

/// Two initializers with the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twins {
    /// The one that stays.
    pub first: ValueId,
    /// The other.
    pub second: ValueId,
    /// Whether the other is the transpose.
    pub transposed: bool,
}

/// Trainable initializers whose elements are all equal and that several nodes read in the same
/// place: scales and shifts of norms, biases. A shared embedding is not among them, for its
/// elements differ.
pub fn find_merged(graph: &Graph) -> Vec<Merged> {
    let consumers = graph.consumers();
    let mut found = Vec::new();
    for parameter in find_parameters(graph).into_iter().filter(|p| p.trainable()) {
        let uses = &consumers[parameter.value.index()];
        let uniform = graph.initializer(parameter.value).is_some_and(all_equal);
        if uses.len() < 2 || !uniform {
            continue;
        }
        let uses = uses.iter().map(|&(id, slot)| (graph.describe(id), slot)).collect();
        found.push(Merged { value: parameter.value, name: parameter.name, uses });
    }
    found
}

/// Gives each use of the initializers that [`find_merged`] finds a copy of its own. The first use
/// keeps the name; the others are called after it and the node that reads them. Returns the new
/// names with the old one.
pub fn split_merged(graph: &mut Graph) -> Result<Vec<(String, String)>> {
    let mut made = Vec::new();
    for merged in find_merged(graph) {
        let Some(data) = graph.initializer(merged.value).cloned() else { continue };
        let uses = graph.consumers()[merged.value.index()].clone();
        for (id, slot) in uses.into_iter().skip(1).filter(|&(_, slot)| slot != usize::MAX) {
            let node = graph.node(id);
            let reader =
                if node.name.is_empty() { id.index().to_string() } else { node.name.clone() };
            let wanted = format!("{}/{reader}.{slot}", merged.name);
            let free = graph.find(&wanted).is_none();
            let name = if free { wanted } else { graph.fresh_name(&wanted) };
            let copy = graph.add_initializer(&name, data.clone())?;
            if let Some(input) = graph.node_mut(id).inputs.get_mut(slot) {
                *input = Some(copy);
            }
            made.push((name, merged.name.clone()));
        }
    }
    Ok(made)
}

/// Pairs of trainable initializers of two dimensions that hold the same values, possibly
/// transposed: a shared embedding that was written twice.
pub fn find_twins(graph: &Graph) -> Vec<Twins> {
    let mut seen: HashMap<(usize, u64), Vec<ValueId>> = HashMap::new();
    let mut found = Vec::new();
    let candidates = find_parameters(graph).into_iter().filter(|p| p.trainable());
    for p in candidates.filter(|p| p.shape.len() == 2 && !p.shape.contains(&1)) {
        let Some(data) = graph.initializer(p.value).filter(|d| !all_equal(d)) else { continue };
        let others = seen.entry((data.len(), element_sum(data))).or_default();
        let twin = others.iter().find_map(|&first| {
            let other = graph.initializer(first)?;
            let same = other.shape() == data.shape() && other.bytes() == data.bytes();
            let transposed = !same && is_transpose(other, data);
            (same || transposed).then_some(Twins { first, second: p.value, transposed })
        });
        match twin {
            Some(twin) => found.push(twin),
            None => others.push(p.value),
        }
    }
    found
}

/// A sum that does not depend on the order of the elements.
fn element_sum(data: &TensorData) -> u64 {
    let word = |e: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..e.len()].copy_from_slice(e);
        u64::from_le_bytes(bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    data.bytes().chunks(data.dtype().size()).fold(0, |sum, e| sum.wrapping_add(word(e)))
}

fn is_transpose(a: &TensorData, b: &TensorData) -> bool {
    let (&[rows, columns], &[n, m]) = (a.shape(), b.shape()) else { return false };
    if (rows, columns) != (m, n) || a.dtype() != b.dtype() {
        return false;
    }
    let size = a.dtype().size();
    let at = |data: &TensorData, i: usize| {
        data.bytes().get(i * size..(i + 1) * size).map(<[u8]>::to_vec)
    };
    (0..rows).all(|i| (0..columns).all(|j| at(a, i * columns + j) == at(b, j * rows + i)))
}

/// Makes the second of each pair the first (through a Transpose where it is transposed), so that
/// they are one parameter again.
pub fn tie_twins(graph: &mut Graph, twins: &[Twins]) -> Result<()> {
    for twin in twins {
        let mut shared = twin.first;
        if twin.transposed {
            let perm = Attribute::Ints(vec![1, 0]);
            shared = graph.op("Transpose", &[twin.first], [("perm", perm)]);
        }
        graph.replace_uses(twin.second, shared);
    }
    graph.prune();
    graph.sort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueType;
    use crate::tensor::DType;

    fn floats(shape: &[usize], f: impl Fn(usize) -> f32) -> TensorData {
        let n = shape.iter().product();
        TensorData::from_slice(shape, &(0..n).map(f).collect::<Vec<_>>()).unwrap()
    }

    /// x + b, twice with the same all-zero b, then through a table and its transposed copy.
    fn model() -> Graph {
        let mut g = Graph::new("merged", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
        let bias = g.add_initializer("bias", floats(&[3], |_| 0.0)).unwrap();
        let table = g.add_initializer("table", floats(&[3, 4], |i| i as f32)).unwrap();
        let turned = floats(&[4, 3], |i| ((i % 3) * 4 + i / 3) as f32);
        let turned = g.add_initializer("turned", turned).unwrap();
        let y = g.op("Add", &[x, bias], []);
        let y = g.op("Add", &[y, bias], []);
        let y = g.op("MatMul", &[y, table], []);
        let y = g.op("MatMul", &[y, turned], []);
        g.add_output(y);
        g
    }

    #[test]
    fn merged_parameters_are_found_and_split() {
        let mut g = model();
        let merged = find_merged(&g);
        assert_eq!(merged.len(), 1);
        assert_eq!((merged[0].name.as_str(), merged[0].uses.len()), ("bias", 2));
        let made = split_merged(&mut g).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].1, "bias");
        assert!(find_merged(&g).is_empty());
        let copy = g.find(&made[0].0).unwrap();
        assert_eq!(g.nodes()[1].input(1), Some(copy));
    }

    #[test]
    fn twins_are_found_and_tied() {
        let mut g = model();
        let twins = find_twins(&g);
        let (first, second) = (g.find("table").unwrap(), g.find("turned").unwrap());
        assert_eq!(twins, [Twins { first, second, transposed: true }]);
        tie_twins(&mut g, &twins).unwrap();
        assert!(g.initializer(second).is_none());
        assert!(find_twins(&g).is_empty());
        let names: Vec<String> = find_parameters(&g).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["bias", "table"]);
    }
}

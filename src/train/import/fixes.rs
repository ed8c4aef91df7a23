//! Fixes for what exporters do to parameters. They write parameters that happen to be equal (fresh
//! norm gains are all 1, fresh biases all 0) as one initializer, which ties what the model keeps
//! apart; and they write a shared embedding twice, which unties what the model shares.
//!
//! *shared initializer*: one initializer that stands for several parameters. *duplicate weights*:
//! two initializers with the same values, possibly transposed.

use std::collections::HashMap;

use super::names::{Uses, is_generated, name_by_use};
use crate::error::Result;
use crate::onnx::{Attribute, Graph, NodeId, TensorData, ValueId};
use crate::tensor::DType;
use crate::train::graphs::{
    GraphParameter, Origin, all_equal, find_parameters, is_statistic, parameter_data,
};

/// Elements that two matrices are compared by before they are compared whole.
const N_PROBES: usize = 16;
/// Edge of the blocks in which a matrix is compared with a transposed one: both fit a cache.
const BLOCK: usize = 64;

/// An initializer that very likely stands for several parameters.
#[derive(Clone, Debug)]
pub struct SharedInitializer {
    /// The initializer.
    pub value: ValueId,
    /// Its name.
    pub name: String,
    /// What reads it: (node, input slot), as messages name the node.
    pub uses: Vec<(String, usize)>,
}

/// Two initializers with the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateWeightPair {
    /// The one that stays: the table, unless only the other has a name that is not generated.
    pub first: ValueId,
    /// The other.
    pub second: ValueId,
    /// Whether the other is the transpose.
    pub transposed: bool,
    /// Whether rows of one of them are looked up: a shared embedding. Equal matrices without a
    /// table may also have been copied from each other when the model was made.
    pub table: bool,
}

/// Trainable initializers whose elements are all equal and that several nodes read in the same
/// place: scales and shifts of norms, biases. A shared embedding is not among them, for its
/// elements differ. Uses through an `Identity` do not count: each is a parameter of its own.
pub fn find_shared_initializers(graph: &Graph) -> Vec<SharedInitializer> {
    let consumers = graph.consumers();
    let mut found = Vec::new();
    for parameter in find_parameters(graph).into_iter().filter(GraphParameter::trainable) {
        let uniform = graph.initializer(parameter.value).is_some_and(all_equal);
        let uses = own_uses(graph, &consumers[parameter.value.index()]);
        if uses.len() < 2 || !uniform {
            continue;
        }
        let uses = uses.iter().map(|&(id, slot)| (graph.describe(id), slot)).collect();
        found.push(SharedInitializer { value: parameter.value, name: parameter.name, uses });
    }
    found
}

fn own_uses(graph: &Graph, uses: &[(NodeId, usize)]) -> Vec<(NodeId, usize)> {
    uses.iter().copied().filter(|(id, _)| graph.node(*id).op != "Identity").collect()
}

/// Gives each use of the initializers that [`find_shared_initializers`] finds a copy of its own.
/// One use keeps the name: the one whose node matches it, else the first. The others get their
/// name in the state dict where the graph shows it, else one made of the old name and the node
/// that reads them. Returns pairs of a new name and the old one.
pub fn split_shared_initializers(graph: &mut Graph) -> Result<Vec<(String, String)>> {
    let mut made = Vec::new();
    for shared in find_shared_initializers(graph) {
        let Some(data) = graph.initializer(shared.value).cloned() else { continue };
        let uses = Uses::of(graph);
        let readers = own_uses(graph, &uses.consumers[shared.value.index()]);
        let names: Vec<Option<String>> = readers
            .iter()
            .map(|&(id, slot)| name_by_use(graph, &uses, id, slot).map(|n| n.name))
            .collect();
        let keeper = names.iter().position(|n| n.as_ref() == Some(&shared.name)).unwrap_or(0);
        for (i, (&(id, slot), named)) in readers.iter().zip(names).enumerate() {
            // A value that the body of a node captures has no slot.
            if i == keeper || slot == usize::MAX {
                continue;
            }
            let free = |n: &String| !graph.has_name(n);
            let name = match named.filter(free) {
                Some(name) => name,
                None => after_reader(graph, &shared.name, id, slot),
            };
            let copy = graph.add_initializer(&name, data.clone())?;
            if let Some(input) = graph.node_mut(id).inputs.get_mut(slot) {
                *input = Some(copy);
            }
            made.push((name, shared.name.clone()));
        }
    }
    Ok(made)
}

/// Gives each running statistic of a batch normalisation an initializer that nothing else reads:
/// in fresh models the mean is zero, and exporters write it as one with shifts and biases.
pub(super) fn split_running_statistics(graph: &mut Graph) -> Result<()> {
    let ids: Vec<NodeId> = graph.node_ids().collect();
    for (id, slot) in ids.into_iter().flat_map(|id| [(id, 3), (id, 4)]) {
        let node = graph.node(id);
        let Some(value) = node.input(slot).filter(|_| is_statistic(node, slot)) else { continue };
        let Some(data) = graph.initializer(value).cloned() else { continue };
        let uses = Uses::of(graph);
        if uses.consumers[value.index()].len() < 2 && !graph.outputs().contains(&value) {
            continue;
        }
        let named = name_by_use(graph, &uses, id, slot).map(|n| n.name);
        let old = graph.value_name(value).to_owned();
        let name = match named.filter(|n| !graph.has_name(n)) {
            Some(name) => name,
            None => after_reader(graph, &old, id, slot),
        };
        let copy = graph.add_initializer(&name, data)?;
        if let Some(input) = graph.node_mut(id).inputs.get_mut(slot) {
            *input = Some(copy);
        }
    }
    Ok(())
}

fn after_reader(graph: &mut Graph, name: &str, id: NodeId, slot: usize) -> String {
    let node = graph.node(id);
    let reader = if node.name.is_empty() { id.index().to_string() } else { node.name.clone() };
    let wanted = format!("{name}/{reader}.{slot}");
    graph.free_name(&wanted)
}

/// Pairs of trainable parameters of two dimensions that hold the same values, possibly
/// transposed: a shared embedding that was written twice, or matrices copied from each other.
pub fn find_duplicate_weights(graph: &Graph) -> Vec<DuplicateWeightPair> {
    let tables = tables(graph);
    let mut seen: HashMap<Probes, Vec<ValueId>> = HashMap::new();
    let mut found = Vec::new();
    let candidates = find_parameters(graph).into_iter().filter(GraphParameter::trainable);
    for p in candidates.filter(|p| p.shape.len() == 2 && !p.shape.contains(&1)) {
        let Some(data) = data_of(graph, &p).filter(|d| !all_equal(d)) else { continue };
        let own = probes(&data, false);
        let duplicate = [(false, own.clone()), (true, probes(&data, true))].into_iter().find_map(
            |(transposed, key)| {
                let same = |v: &ValueId| {
                    let other = parameter_data(graph, *v);
                    other.is_ok_and(|other| equal(&other, &data, transposed))
                };
                let other = seen.get(&key)?.iter().copied().find(same)?;
                Some((other, transposed, key))
            },
        );
        let Some((other, transposed, key)) = duplicate else {
            seen.entry(own).or_default().push(p.value);
            continue;
        };
        let table = tables.contains(&other) || tables.contains(&p.value);
        let rank = |v: ValueId| (is_generated(graph.value_name(v)), !tables.contains(&v));
        let (first, second) = match rank(p.value) < rank(other) {
            true => (p.value, other),
            false => (other, p.value),
        };
        if first != other {
            // A third copy must find the one that stays.
            seen.entry(key).or_default().retain(|&v| v != other);
            seen.entry(own).or_default().push(first);
        }
        found.push(DuplicateWeightPair { first, second, transposed, table });
    }
    found
}

fn data_of(graph: &Graph, p: &GraphParameter) -> Option<TensorData> {
    match p.origin {
        Origin::Initializer => graph.initializer(p.value).cloned(),
        Origin::Constant => parameter_data(graph, p.value).ok(),
        Origin::Identity => None,
    }
}

/// Values whose rows some node looks up.
fn tables(graph: &Graph) -> Vec<ValueId> {
    let gathers = graph.nodes().iter().filter(|n| n.op == "Gather" && n.domain.is_empty());
    let by_row = gathers.filter(|n| n.int("axis").unwrap_or(0) == 0);
    by_row.filter_map(|n| n.input(0)).collect()
}

/// Element type, rows, columns, and the bits of a few elements.
type Probes = (DType, usize, usize, Vec<u64>);

fn probes(data: &TensorData, transposed: bool) -> Probes {
    let (rows, columns) = (data.shape()[0], data.shape()[1]);
    let (n, m) = if transposed { (columns, rows) } else { (rows, columns) };
    let bits = |k: usize| {
        let (i, j) = (k * 7919 % n, k * 104_729 % m);
        let at = if transposed { j * columns + i } else { i * columns + j };
        let size = data.dtype().size();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&data.bytes()[at * size..(at + 1) * size]);
        u64::from_le_bytes(bytes)
    };
    (data.dtype(), n, m, (0..N_PROBES).map(bits).collect())
}

/// Whether `b`, or its transpose, has the bits of `a`.
fn equal(a: &TensorData, b: &TensorData, transposed: bool) -> bool {
    if a.dtype() != b.dtype() || a.len() != b.len() {
        return false;
    }
    if !transposed {
        return a.shape() == b.shape() && a.bytes() == b.bytes();
    }
    let (rows, columns) = (a.shape()[0], a.shape()[1]);
    let size = a.dtype().size();
    let (x, y) = (&a.bytes()[..], &b.bytes()[..]);
    let place = |i: usize| i * size..(i + 1) * size;
    let same = |i: usize, j: usize| x[place(i * columns + j)] == y[place(j * rows + i)];
    (0..rows).step_by(BLOCK).all(|top| {
        (0..columns).step_by(BLOCK).all(|left| {
            let right = (left + BLOCK).min(columns);
            (top..(top + BLOCK).min(rows)).all(|i| (left..right).all(|j| same(i, j)))
        })
    })
}

/// Replaces the second of each pair by the first (through a Transpose where needed), so that they
/// are one parameter again.
pub fn tie_duplicate_weights(graph: &mut Graph, pairs: &[DuplicateWeightPair]) -> Result<()> {
    for pair in pairs {
        let mut shared = pair.first;
        if pair.transposed {
            let perm = Attribute::Ints(vec![1, 0]);
            shared = graph.op("Transpose", &[pair.first], [("perm", perm)]);
        }
        graph.replace_uses(pair.second, shared);
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
        let mut g = Graph::new("shared", 17);
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
    fn shared_initializers_are_found_and_split() {
        let mut g = model();
        let shared = find_shared_initializers(&g);
        assert_eq!(shared.len(), 1);
        assert_eq!((shared[0].name.as_str(), shared[0].uses.len()), ("bias", 2));
        let made = split_shared_initializers(&mut g).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].1, "bias");
        assert!(find_shared_initializers(&g).is_empty());
        let copy = g.find(&made[0].0).unwrap();
        assert_eq!(g.nodes()[1].input(1), Some(copy));
    }

    #[test]
    fn duplicate_weights_are_found_and_tied() {
        let mut g = model();
        let pairs = find_duplicate_weights(&g);
        let (first, second) = (g.find("table").unwrap(), g.find("turned").unwrap());
        assert_eq!(pairs, [DuplicateWeightPair { first, second, transposed: true, table: false }]);
        tie_duplicate_weights(&mut g, &pairs).unwrap();
        assert!(g.initializer(second).is_none());
        assert!(find_duplicate_weights(&g).is_empty());
        let names: Vec<String> = find_parameters(&g).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["bias", "table"]);
    }

    /// The table is the second in the file, and a third copy is found too.
    #[test]
    fn of_duplicates_the_table_with_a_name_stays() {
        let mut g = Graph::new("tied", 17);
        let ids = g.add_input("ids", ValueType::known(DType::I64, &[2])).unwrap();
        let turned = floats(&[4, 3], |i| ((i % 3) * 4 + i / 3) as f32);
        let generated = g.add_initializer("onnx::MatMul_9", turned.clone()).unwrap();
        let head = g.add_initializer("head", turned).unwrap();
        let table = g.add_initializer("table", floats(&[3, 4], |i| i as f32)).unwrap();
        let rows = g.op("Gather", &[table, ids], []);
        let y = g.op("MatMul", &[rows, generated], []);
        let z = g.op("MatMul", &[rows, head], []);
        g.add_output(y);
        g.add_output(z);
        let pairs = find_duplicate_weights(&g);
        let pair = |first, second, transposed, table| DuplicateWeightPair {
            first,
            second,
            transposed,
            table,
        };
        assert_eq!(pairs, [pair(head, generated, false, false), pair(table, head, true, true)]);
        tie_duplicate_weights(&mut g, &pairs).unwrap();
        let names: Vec<String> = find_parameters(&g).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["table"]);
    }

    #[test]
    fn nearly_equal_matrices_are_no_duplicates() {
        let a = floats(&[100, 70], |i| i as f32);
        let turned = |i: usize| ((i % 100) * 70 + i / 100) as f32;
        let b = floats(&[70, 100], turned);
        assert!(equal(&a, &b, true) && !equal(&a, &b, false));
        let c = floats(&[70, 100], |i| if i == 6_999 { 0.5 } else { turned(i) });
        assert!(!equal(&a, &c, true));
    }

    #[test]
    fn an_identity_is_a_parameter_of_its_own_and_no_use() {
        let mut g = Graph::new("aliased", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
        let gain = g.add_initializer("gain", floats(&[3], |_| 1.0)).unwrap();
        let other = g.op("Identity", &[gain], []);
        let y = g.op("Mul", &[x, gain], []);
        let y = g.op("Mul", &[y, other], []);
        g.add_output(y);
        assert!(find_shared_initializers(&g).is_empty());
        assert_eq!(find_parameters(&g).len(), 2);
    }
}

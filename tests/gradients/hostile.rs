//! Damaged and lying graphs: differentiation answers with an error or a graph, never a panic.
//!
//! Small exported models are mutated: attributes get extreme values, inputs are dropped or
//! exchanged, operators renamed, constants replaced. Some runs ask the runtime for types as
//! training does; others skip it and make types up, so that rules meet shapes that cannot be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::runtime;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use mmopt::autodiff::{self, LossKind, LossSpec, rows};
use mmopt::onnx::{Attribute, Build, Graph, Node, NodeId, TensorData, ValueId, ValueType, compat};
use mmopt::tensor::DType;
use mmopt::train::graphs::{GraphParameter, find_parameters, fix_shapes_and_types, training_graph};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const EXTREMES: &[i64] = &[i64::MIN, -100, -2, -1, 0, 1, 2, 3, 7, 1 << 31, i64::MAX];

fn models() -> Vec<(PathBuf, LossKind)> {
    let root = PathBuf::from("tests/data/oracle");
    vec![
        (root.join("bert-seqcls/dyn-op23-sdpa.onnx"), LossKind::SequenceClassification),
        (root.join("gpt2-clm/raw-op18-sdpa.onnx"), LossKind::CausalLm),
        (root.join("roberta-qa/dyn-op20-sdpa.onnx"), LossKind::QuestionAnswering),
    ]
}

fn shapes(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    graph.inputs().iter().map(|&v| (graph.value_name(v).to_owned(), vec![2, 5])).collect()
}

/// One change to one node or constant.
fn mutate(graph: &mut Graph, random: &mut Random) {
    let ids: Vec<NodeId> = graph.node_ids().collect();
    let values: Vec<ValueId> = graph.value_ids().collect();
    let names: Vec<&str> = rows().map(|r| r.op).collect();
    let id = random.pick(&ids);
    match random.below(6) {
        0 => {
            let n = graph.node(id).inputs.len();
            if n > 0 {
                graph.node_mut(id).inputs[random.below(n)] = None;
            }
        }
        1 => {
            let n = graph.node(id).inputs.len();
            if n > 0 {
                graph.node_mut(id).inputs[random.below(n)] = Some(random.pick(&values));
            }
        }
        2 => graph.node_mut(id).op = random.pick(&names).to_owned(),
        3 => {
            let value = random.pick(EXTREMES);
            let keys: Vec<String> = graph.node(id).attributes.keys().cloned().collect();
            let key = if keys.is_empty() {
                "axis".to_owned()
            } else {
                keys[random.below(keys.len())].clone()
            };
            let attribute = match graph.node(id).attributes.get(&key) {
                Some(Attribute::Ints(old)) => {
                    let mut list = old.clone();
                    if list.is_empty() || random.below(3) == 0 {
                        list.push(value);
                    } else {
                        let at = random.below(list.len());
                        list[at] = value;
                    }
                    Attribute::Ints(list)
                }
                Some(Attribute::String(_)) => Attribute::String("odd".into()),
                Some(Attribute::Float(_)) => Attribute::Float(f32::NAN),
                _ => Attribute::Int(value),
            };
            graph.node_mut(id).attributes.insert(key, attribute);
        }
        4 => graph.node_mut(id).outputs.truncate(0),
        _ => {
            let constants: Vec<ValueId> = graph.initializers().keys().copied().collect();
            let v = random.pick(&constants);
            let list: Vec<i64> = (0..random.below(4)).map(|_| random.pick(EXTREMES)).collect();
            graph.set_initializer(v, TensorData::ints(&list));
        }
    }
}

/// Runs `attempt` for many seeds; panics are failures, errors are not. Returns (good, refused).
fn survive(n: u64, attempt: impl Fn(&mut Random) -> bool) -> (usize, usize) {
    let mut counts = (0, 0);
    let mut failed = Vec::new();
    for seed in 1..=n {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        match catch_unwind(AssertUnwindSafe(|| attempt(&mut random))) {
            Ok(true) => counts.0 += 1,
            Ok(false) => counts.1 += 1,
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "panics with the seeds {failed:?}");
    counts
}

#[test]
fn mutated_models_through_the_runtime() {
    if !runtime() {
        return;
    }
    let n = std::env::var("MMOPT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for (path, kind) in models() {
        let whole = Graph::read(&path).unwrap();
        let spec = LossSpec::new(kind);
        let (good, refused) = survive(n, |random| {
            let mut graph = whole.clone();
            (0..=random.below(3)).for_each(|_| mutate(&mut graph, random));
            let mut params = find_parameters(&graph);
            params.retain(GraphParameter::trainable);
            let values: Vec<ValueId> = params.iter().map(|p| p.value).collect();
            training_graph(&graph, &values, &spec, &shapes(&graph)).is_ok()
        });
        eprintln!("{}: {good} good, {refused} refused", path.display());
        assert!(refused > 0, "mutations that change nothing");
    }
}

#[test]
fn lying_types() {
    if !runtime() {
        return;
    }
    let n = std::env::var("MMOPT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for (path, kind) in models() {
        let whole = Graph::read(&path).unwrap();
        let spec = LossSpec::new(kind);
        let typed = fix_shapes_and_types(&whole, &shapes(&whole)).unwrap();
        let (good, refused) = survive(n, |random| {
            let mut graph = typed.clone();
            for _ in 0..=random.below(3) {
                mutate(&mut graph, random);
                let values: Vec<ValueId> = graph.value_ids().collect();
                let dtype = random.pick(&[DType::F32, DType::F32, DType::I64, DType::Bool]);
                let sizes = [0, 1, 2, 3, 5, 12, 32, 1 << 20];
                let shape: Vec<usize> = (0..random.below(5)).map(|_| random.pick(&sizes)).collect();
                graph.set_type(random.pick(&values), ValueType::known(dtype, &shape));
            }
            let params = find_parameters(&graph);
            let values: Vec<ValueId> = params.iter().map(|p| p.value).collect();
            let mut attempt = || {
                compat::lower(&mut graph)?;
                let attached = autodiff::attach_loss(&mut graph, &spec)?;
                autodiff::differentiate(&mut graph, attached.loss, &values)
            };
            attempt().is_ok()
        });
        eprintln!("{}: {good} good, {refused} refused", path.display());
        assert!(refused > 0, "lies that change nothing");
    }
}

/// One node of any operator of the table, with inputs, outputs and attributes made up.
#[test]
fn rules_alone() {
    let n = std::env::var("MMOPT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let table: Vec<_> = rows().copied().collect();
    let (good, refused) = survive(n, |random| {
        let row = table[random.below(table.len())];
        let mut graph = Graph::new("made up", random.pick(&[17, 18, 20, 23, 24]));
        graph.opsets.insert("mmopt".into(), 1);
        let sizes = [0, 1, 2, 2, 3, 3, 4, 6, usize::MAX >> 3];
        let shape = |random: &mut Random| -> Vec<usize> {
            (0..random.below(6)).map(|_| random.pick(&sizes)).collect()
        };
        let common = shape(random);
        let mut params = Vec::new();
        let mut inputs = Vec::new();
        for _ in 0..=random.below(6) {
            inputs.push(match random.below(5) {
                0 => None,
                1 => {
                    let n = random.below(5);
                    let list: Vec<i64> = (0..n).map(|_| random.pick(EXTREMES)).collect();
                    Some(graph.add_initializer("", TensorData::ints(&list)).unwrap())
                }
                kind => {
                    let shape = if kind == 2 { shape(random) } else { common.clone() };
                    let dtype = random.pick(&[DType::F32, DType::F32, DType::F64, DType::I64]);
                    let v = graph.add_input("", ValueType::known(dtype, &shape)).unwrap();
                    params.push(v);
                    Some(v)
                }
            });
        }
        let outputs: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let v = graph.add_value("").unwrap();
                let shape = if random.below(3) == 0 { shape(random) } else { common.clone() };
                graph.set_type(v, ValueType::known(DType::F32, &shape));
                Some(v)
            })
            .collect();
        let mut node = Node {
            name: String::new(),
            op: row.op.into(),
            domain: row.domain.into(),
            inputs,
            outputs: outputs.clone(),
            attributes: Default::default(),
        };
        let names = [
            "axis",
            "axes",
            "perm",
            "pads",
            "strides",
            "dilations",
            "kernel_shape",
            "group",
            "blocksize",
            "batch_dims",
            "num_groups",
            "keepdims",
            "transA",
            "transB",
            "reduction",
            "mode",
            "auto_pad",
            "training_mode",
            "ceil_mode",
            "equation",
            "p",
            "upper",
        ];
        for _ in 0..random.below(6) {
            let n = random.below(5);
            let value = match random.below(4) {
                0 => Attribute::Int(random.pick(EXTREMES)),
                1 => Attribute::String(random.pick(&["none", "add", "SAME_UPPER", "CRD"]).into()),
                _ => Attribute::Ints((0..n).map(|_| random.pick(EXTREMES)).collect()),
            };
            node.attributes.insert(random.pick(&names).into(), value);
        }
        graph.push_node(node);
        let mut attempt = |graph: &mut Graph| {
            let mut parts = Vec::new();
            let mut g = Build::new(graph);
            for &y in outputs.iter().flatten() {
                let axes: Vec<usize> = (0..g.rank(y)?).collect();
                parts.push(g.reduce("ReduceSum", y, &axes, false)?);
            }
            let loss = g.sum(&parts)?;
            params.retain(|&p| g.is_float(p));
            compat::lower(graph)?;
            autodiff::differentiate(graph, loss, &params)
        };
        attempt(&mut graph).is_ok()
    });
    eprintln!("{good} good, {refused} refused");
    assert!(good > 0 && refused > 0);
}

//! Finds where a run first becomes non-finite, in the forward or the backward part.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::memory::copied;
use crate::onnx::{Graph, NodeId, TensorData, ValueId};
use crate::runtime::{Optimize, Session, SessionOptions};
use crate::tensor::{DType, Tensor};

/// The part of a training graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// An input: the batch, or a parameter.
    Input,
    /// What the loss is computed from.
    Forward,
    /// What only gradients are computed from.
    Backward,
}

/// Numbers that a node read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operand {
    /// Name of the value.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Smallest finite element; NaN when there is none.
    pub min: f64,
    /// Largest finite element; NaN when there is none.
    pub max: f64,
    /// Elements that are NaN or infinite.
    pub n_non_finite: usize,
}

/// Where a NaN or infinity came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFiniteOrigin {
    /// In which part of the graph.
    pub pass: Pass,
    /// The node, as messages name it; empty for an input.
    pub node: String,
    /// Its operator; empty for an input.
    pub op: String,
    /// Which of the node's outputs, from 0.
    pub output: usize,
    /// The value.
    pub value: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// `NaN`, `inf` or `-inf`: the worst that it holds.
    pub what: &'static str,
    /// How many of its elements are not finite.
    pub count: usize,
    /// Position of the first of them.
    pub position: Vec<usize>,
    /// What the node read, as far as it is numbers.
    pub inputs: Vec<Operand>,
    /// The losses and gradients that are not finite.
    pub reaches: Vec<String>,
}

impl NonFiniteOrigin {
    /// One JSON object with the fields of this struct; NaN is null.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl fmt::Display for NonFiniteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, shape, what, count, position, .. } = self;
        let elements = shape.iter().product::<usize>();
        match self.pass {
            Pass::Input => write!(f, "input '{value}'")?,
            Pass::Forward => write!(f, "forward, {}, output {} '{value}'", self.node, self.output)?,
            Pass::Backward => {
                write!(f, "backward, {}, output {} '{value}'", self.node, self.output)?;
            }
        }
        let many = if elements == 1 { "element is" } else { "elements are" };
        write!(f, " {shape:?}: {count} of {elements} {many} not finite, {what}, ")?;
        write!(f, "the first at {position:?}")?;
        for input in &self.inputs {
            write!(f, "\n  reads '{}' {:?}", input.name, input.shape)?;
            if input.min <= input.max {
                write!(f, " from {:e} to {:e}", input.min, input.max)?;
            }
            if input.n_non_finite > 0 {
                write!(f, ", {} not finite", input.n_non_finite)?;
            }
        }
        write!(f, "\n  reaches {}", self.reaches.join(", "))
    }
}

/// Runs a training graph once with every float value as an output. `None` when the outputs
/// `checked` are finite; then infinities inside, as masks have them, are harmless. Otherwise the
/// first value in the order of computation that leads to one of them and is not finite although
/// everything it was computed from is. Where a constant brings an infinity in, the first NaN or
/// +inf that was computed from none counts.
///
/// `model` and `feeds` are those of the run that failed, e.g. [`super::TrainingGraph::bytes`];
/// what the first of `checked`, the loss, is computed from is the forward part. It needs the memory
/// of all values at once.
///
/// # Errors
/// `NotFound` for unknown names; whatever the runtime refuses.
pub fn find_non_finite(
    model: &[u8],
    checked: &[&str],
    feeds: &[(&str, &Tensor)],
) -> Result<Option<NonFiniteOrigin>> {
    let mut graph = Graph::from_bytes(copied(model)?.into())?;
    let ends = checked
        .iter()
        .map(|name| graph.find(name).ok_or_else(|| Error::not_found(format!("no value '{name}'"))))
        .collect::<Result<Vec<_>>>()?;
    let made: Vec<(NodeId, usize, ValueId)> = graph
        .node_ids()
        .flat_map(|id| {
            let outputs = graph.node(id).outputs.iter().enumerate();
            outputs.filter_map(move |(slot, v)| Some((id, slot, (*v)?))).collect::<Vec<_>>()
        })
        .collect();
    graph.set_outputs(made.iter().map(|&(.., v)| v).collect());
    let options = SessionOptions {
        name: "non-finite".into(),
        optimize: Optimize::Disabled,
        ..SessionOptions::default()
    };
    let session = Session::from_bytes(&graph.to_bytes()?, &options)?;
    let float = |v: ValueId| {
        let name = graph.value_name(v);
        let output = session.outputs().iter().find(|o| o.name == name);
        output.and_then(|o| o.dtype).is_some_and(DType::is_float)
    };
    let floats: Vec<ValueId> = made.iter().map(|&(.., v)| v).filter(|&v| float(v)).collect();
    let names: Vec<&str> = floats.iter().map(|&v| graph.value_name(v)).collect();
    let taken = |name: &str| session.inputs().iter().any(|i| i.name == name);
    let wanted: Vec<(&str, &Tensor)> =
        feeds.iter().copied().filter(|(name, _)| taken(name)).collect();
    let results = session.run(&wanted, &names)?;
    let mut values: HashMap<ValueId, Summary> = HashMap::new();
    let fed = wanted.iter().filter_map(|(name, t)| Some((graph.find(name)?, Summary::of(t)?)));
    values.extend(fed);
    let computed = floats.iter().zip(&results);
    values.extend(computed.filter_map(|(&v, t)| Some((v, Summary::of(t)?))));
    for (&v, data) in graph.initializers().iter().filter(|(_, d)| d.dtype().is_float()) {
        if let Ok(tensor) = data.to_tensor() {
            values.extend(Summary::of(&tensor).map(|s| (v, s)));
        }
    }
    Ok(Search { graph: &graph, made, values }.find(&ends))
}

/// Statistics of a tensor.
struct Summary {
    operand: Operand,
    bad: Option<(&'static str, usize)>,
}

impl Summary {
    fn of(tensor: &Tensor) -> Option<Self> {
        let values = TensorData::from_tensor(tensor).and_then(|data| data.to_f64s()).ok()?;
        let finite = values.iter().copied().filter(|v| v.is_finite());
        let n_non_finite = values.len() - finite.clone().count();
        let operand = Operand {
            name: String::new(),
            shape: tensor.shape().to_vec(),
            min: finite.clone().reduce(f64::min).unwrap_or(f64::NAN),
            max: finite.reduce(f64::max).unwrap_or(f64::NAN),
            n_non_finite,
        };
        let what = match () {
            () if values.iter().any(|v| v.is_nan()) => "NaN",
            () if values.contains(&f64::INFINITY) => "inf",
            () => "-inf",
        };
        let first = values.iter().position(|v| !v.is_finite());
        Some(Self { operand, bad: first.map(|at| (what, at)) })
    }
}

struct Search<'g> {
    graph: &'g Graph,
    made: Vec<(NodeId, usize, ValueId)>,
    values: HashMap<ValueId, Summary>,
}

impl Search<'_> {
    fn bad(&self, v: ValueId) -> Option<(&'static str, usize)> {
        self.values.get(&v)?.bad
    }

    fn find(&self, checked: &[ValueId]) -> Option<NonFiniteOrigin> {
        let ends = checked.iter().copied().filter(|&v| self.bad(v).is_some());
        let ends: Vec<ValueId> = ends.collect();
        if ends.is_empty() {
            return None;
        }
        let needed = self.ancestors(&ends);
        let forward = self.ancestors(checked.get(..1)?);
        let pass = |v: ValueId| match forward.contains(&v) {
            true => Pass::Forward,
            false => Pass::Backward,
        };
        let reaches = ends.iter().map(|&v| self.graph.value_name(v).to_owned()).collect();
        let fed = self.graph.inputs().iter().copied();
        if let Some(v) = fed.filter(|v| needed.contains(v)).find(|&v| self.bad(v).is_some()) {
            return self.finding(Pass::Input, None, v, reaches);
        }
        let candidates = || self.made.iter().filter(|(.., v)| needed.contains(v));
        let clean = |id: NodeId, fine: &dyn Fn(ValueId) -> bool| {
            self.graph.node(id).inputs.iter().flatten().all(|&v| fine(v))
        };
        let computed = |v: ValueId| self.graph.initializer(v).is_none();
        let origin = candidates()
            .find(|&&(id, _, v)| self.bad(v).is_some() && clean(id, &|v| self.bad(v).is_none()));
        let worse = |v: ValueId| self.bad(v).is_some_and(|(what, _)| what != "-inf");
        let origin = origin.or_else(|| {
            candidates().find(|&&(id, _, v)| worse(v) && clean(id, &|v| !(computed(v) && worse(v))))
        });
        let origin = origin.or_else(|| candidates().find(|(.., v)| self.bad(*v).is_some()));
        let &(id, slot, v) = origin?;
        self.finding(pass(v), Some((id, slot)), v, reaches)
    }

    /// Every value that `ends` are computed from, and themselves.
    fn ancestors(&self, ends: &[ValueId]) -> HashSet<ValueId> {
        let producers = self.graph.producers();
        let mut found = HashSet::new();
        let mut todo = ends.to_vec();
        while let Some(v) = todo.pop() {
            if let (true, Some((id, _))) = (found.insert(v), producers[v.index()]) {
                let node = self.graph.node(id);
                todo.extend(node.inputs.iter().flatten());
                todo.extend(node.captures().iter().filter_map(|n| self.graph.find(n)));
            }
        }
        found
    }

    fn finding(
        &self,
        pass: Pass,
        maker: Option<(NodeId, usize)>,
        v: ValueId,
        reaches: Vec<String>,
    ) -> Option<NonFiniteOrigin> {
        let summary = self.values.get(&v)?;
        let (what, first) = summary.bad?;
        let shape = summary.operand.shape.clone();
        let mut rest = first;
        let mut position: Vec<usize> = shape
            .iter()
            .rev()
            .map(|&d| {
                let at = rest % d;
                rest /= d;
                at
            })
            .collect();
        position.reverse();
        let node = maker.map(|(id, _)| self.graph.node(id));
        let read = node.iter().flat_map(|n| n.inputs.iter().flatten()).filter_map(|v| {
            let operand = self.values.get(v)?.operand.clone();
            Some(Operand { name: self.graph.value_name(*v).to_owned(), ..operand })
        });
        Some(NonFiniteOrigin {
            pass,
            node: maker.map(|(id, _)| self.graph.describe(id)).unwrap_or_default(),
            op: node.map(|n| n.op.clone()).unwrap_or_default(),
            output: maker.map_or(0, |(_, slot)| slot),
            value: self.graph.value_name(v).to_owned(),
            what,
            count: summary.operand.n_non_finite,
            position,
            inputs: read.collect(),
            reaches,
            shape,
        })
    }
}

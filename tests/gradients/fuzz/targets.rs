//! What the fuzzers call: each takes any bytes, and may neither panic, hang nor take much memory.
//! None of them loads ONNX Runtime.

use bytes::Bytes;
use mmopt::autodiff::{self, LossKind, LossSpec};
use mmopt::checkpoint::weights::Weights;
use mmopt::error::{Error, Result};
use mmopt::models::Config;
use mmopt::onnx::{Build, Graph, MMOPT_DOMAIN, ValueId, compat};
use mmopt::optim::{ModelSpec, Optimizer, Options, ParamSpec};
use mmopt::runtime::kernels;
use mmopt::tensor::DType;
use mmopt::train::graphs::{GraphParameter, find_parameters, make_inputs, switch_to_inference};
use mmopt::train::import::{
    find_duplicate_weights, find_shared_initializers, split_shared_initializers,
    tie_duplicate_weights,
};

/// Rounds of putting bodies in their place, as training does.
const ROUNDS: usize = 8;

/// Reads a model and does what training does before it asks the runtime.
pub fn reader(data: &[u8]) {
    let Ok(mut graph) = Graph::from_bytes(Bytes::copy_from_slice(data)) else { return };
    write_and_read(&graph);
    for node in graph.nodes().iter().filter(|n| n.op == "If") {
        for body in graph.branches(node).into_iter().flatten() {
            if let Ok(branch) = graph.branch(body) {
                write_and_read(&branch);
            }
        }
    }
    let trained = trainable(&graph);
    for &output in graph.outputs() {
        let _ = autodiff::check_operators(&graph, output, &trained);
    }
    let mut fixed = graph.clone();
    let duplicates = find_duplicate_weights(&fixed);
    let _ = tie_duplicate_weights(&mut fixed, &duplicates)
        .and_then(|()| split_shared_initializers(&mut fixed));
    let _ = find_shared_initializers(&fixed);
    write_and_read(&fixed);
    let _ = graph.detach();
    if compat::raise_opset(&mut graph).is_ok()
        && inline(&mut graph).is_ok()
        && switch_to_inference(&mut graph).is_ok()
    {
        write_and_read(&graph);
    }
}

fn inline(graph: &mut Graph) -> Result<()> {
    graph.inline_functions()?;
    for _ in 0..ROUNDS {
        if !graph.inline_branches()? {
            break;
        }
        graph.inline_functions()?;
    }
    Ok(())
}

/// What is written reads back.
fn write_and_read(graph: &Graph) {
    let Ok(bytes) = graph.to_bytes() else { return };
    match Graph::from_bytes(bytes.into()) {
        Ok(again) => assert_eq!(again.nodes().len(), graph.nodes().len()),
        Err(e) => panic!("what was written does not read back: {e}"),
    }
}

fn trainable(graph: &Graph) -> Vec<ValueId> {
    let found = find_parameters(graph).into_iter().filter(GraphParameter::trainable);
    found.map(|p| p.value).collect()
}

/// Differentiates a model that states its values' types, truly or not. Returns whether it could.
pub fn differentiate(data: &[u8]) -> bool {
    let Ok(graph) = Graph::from_bytes(Bytes::copy_from_slice(data)) else { return false };
    gradients(graph, data.iter().fold(0, |h: usize, &b| h.wrapping_mul(31) ^ usize::from(b)))
        .is_ok()
}

fn gradients(mut graph: Graph, choice: usize) -> Result<()> {
    compat::raise_opset(&mut graph)?;
    inline(&mut graph)?;
    if choice.is_multiple_of(2) {
        graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
    }
    compat::lower(&mut graph)?;
    let mut params = trainable(&graph);
    make_inputs(&mut graph, &params)?;
    let float = |v: &ValueId| graph.value(*v).ty.dtype.is_some_and(DType::is_float);
    let others = graph.inputs().iter().filter(|v| float(v) && !params.contains(v));
    params.extend(others.copied().collect::<Vec<_>>());
    let loss = loss(&mut graph, choice / 2)?;
    let gradients = autodiff::differentiate(&mut graph, loss, &params)?;
    for (gradient, p) in gradients.iter().zip(&params) {
        let shape = |v: ValueId| graph.value(v).ty.static_shape();
        assert!(gradient.is_none_or(|g| shape(g) == shape(*p)), "a gradient of another shape");
    }
    graph.set_outputs(gradients.into_iter().flatten().collect());
    graph.prune();
    graph.prune_inputs(&params);
    graph.sort()?;
    kernels::attach(&mut graph)?;
    write_and_read(&graph);
    Ok(())
}

/// The sum of all float outputs, or a loss on them.
fn loss(graph: &mut Graph, choice: usize) -> Result<ValueId> {
    let outputs = graph.outputs().to_vec();
    let first = outputs.first().copied().ok_or_else(|| Error::data("no outputs"))?;
    let name = graph.value_name(first).to_owned();
    let kind = match choice % 16 {
        0 => LossKind::SequenceClassification,
        1 => LossKind::CausalLm,
        2 => LossKind::QuestionAnswering,
        3 => LossKind::MeanSquaredError,
        4 => LossKind::Output(name.clone()),
        5 => LossKind::TokenClassification,
        _ => {
            let mut parts = Vec::new();
            let mut g = Build::new(graph);
            for y in outputs.into_iter().filter(|&y| g.is_float(y)).collect::<Vec<_>>() {
                let axes: Vec<usize> = (0..g.rank(y)?).collect();
                parts.push(g.reduce("ReduceSum", y, &axes, false)?);
            }
            return if parts.is_empty() { Err(Error::data("no floats")) } else { g.sum(&parts) };
        }
    };
    let spec = LossSpec { logits: Some(name), label_smoothing: 0.1, ..LossSpec::new(kind) };
    let attached = autodiff::attach_loss(graph, &spec)?;
    match attached.logits.first() {
        Some(_) if choice & 32 == 0 => {
            let own = autodiff::MutualTerm { temperature: 2.0, asks: choice & 64 != 0 };
            let term = autodiff::attach_mutual(graph, &spec.kind, &attached.logits, own)?;
            Build::new(graph).add(attached.loss, term)
        }
        _ => Ok(attached.loss),
    }
}

/// Reads a weights file, and a configuration.
pub fn weights(data: &[u8]) {
    if let Ok(weights) = Weights::from_bytes(Bytes::copy_from_slice(data)) {
        for name in weights.names() {
            let view = weights.find(name).expect("a listed tensor");
            let n: usize = view.shape.iter().product();
            assert_eq!(n * view.dtype.size(), view.bytes.len());
            let _ = (weights.tensor(name), weights.f32_bytes(name));
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(config) = Config::from_json(text)
    {
        let _ = config.default_task();
        Config::from_json(&config.to_json()).expect("what was written reads back");
    }
}

/// Restores an optimizer's state: JSON, a line end, and a weights file.
pub fn checkpoint(data: &[u8]) {
    let end = data.iter().position(|&b| b == b'\n').unwrap_or(data.len());
    let (json, rest) = data.split_at(end);
    let Ok(json) = serde_json::from_slice(json) else { return };
    let moments = Weights::from_bytes(Bytes::copy_from_slice(rest.get(1..).unwrap_or_default()));
    let moments = moments.unwrap_or_default();
    let mut optimizer = optimizer().expect("a plain optimizer");
    let before = optimizer.state_json().expect("a state");
    let tensor = |name: &str| moments.find(name).map(|t| (t.dtype, t.shape, t.bytes));
    match optimizer.load_state(&json, &tensor) {
        Ok(()) => drop(optimizer.step()),
        Err(_) => assert_eq!(optimizer.state_json().expect("a state"), before, "changed"),
    }
}

/// An optimizer of two small models in memory of its own.
pub fn optimizer() -> Result<Optimizer> {
    let models = ["a", "b"].map(|name| {
        let param = |name: &str, shape: &[usize]| ParamSpec::new(name, shape);
        ModelSpec::new(name, vec![param("w.weight", &[2, 3]), param("w.bias", &[3])])
    });
    let options = Options { n_threads: 1, ..Options::default() };
    let mut optimizer = Optimizer::new(options, models.to_vec())?;
    (0..2).try_for_each(|model| optimizer.bind_owned(model, DType::F32))?;
    Ok(optimizer)
}

//! Models that mutations start from: one small model for each gradient rule and rewrite, with the
//! types of all values in the file; models with branches and functions; exported models.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mmopt::error::Result;
use mmopt::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    ValueInfoProto,
};
use mmopt::onnx::{Graph, TensorData, ValueId, ValueType};
use mmopt::tensor::DType;
use mmopt::train::graphs::{find_parameters, fix_shapes_and_types, make_inputs};
use prost::Message;

use crate::rules::case::Case;

/// The committed seeds: for each its length as four little-endian bytes, then the model.
pub const FILE: &str = "tests/data/fuzz/seeds.bin";
/// Exported models, for a corpus; they need the runtime to state their types.
const EXPORTED: &str = "tests/data/oracle";

/// The models of [`FILE`].
pub fn committed() -> Vec<Vec<u8>> {
    let all = fs::read(FILE).unwrap();
    let mut rest = &all[..];
    let mut seeds = Vec::new();
    while let Some((n, data)) = rest.split_first_chunk::<4>() {
        let (seed, after) = data.split_at(u32::from_le_bytes(*n) as usize);
        seeds.push(seed.to_vec());
        rest = after;
    }
    seeds
}

/// Writes [`FILE`] from the first case of each operator. Needs the runtime.
pub fn commit(cases: &[Case]) {
    let mut seen = BTreeSet::new();
    let first = cases.iter().filter(|c| seen.insert((c.domain, c.op)));
    let mut all = Vec::new();
    for seed in first.filter_map(|c| single(c).ok()).chain([branches(), calls()]) {
        all.extend((seed.len() as u32).to_le_bytes());
        all.extend(seed);
    }
    fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
    fs::write(FILE, all).unwrap();
}

/// Fills `dir` with a corpus of models. Needs the runtime.
pub fn fill(dir: &Path, cases: &[Case]) {
    fs::create_dir_all(dir).unwrap();
    let singles = cases.iter().filter_map(|c| single(c).ok());
    let seeds = singles.chain(exported()).chain(committed());
    seeds.enumerate().for_each(|(i, s)| fs::write(dir.join(format!("seed-{i:04}")), s).unwrap());
}

/// The operator of a case alone, with typed outputs.
fn single(case: &Case) -> Result<Vec<u8>> {
    let (graph, _) = case.graph(DType::F32).or_else(|_| case.graph(DType::F64))?;
    let mut graph = fix_shapes_and_types(&graph, &BTreeMap::new())?;
    let tested = graph.nodes().iter().find(|n| n.name == "tested");
    let outputs = tested.map(|n| n.outputs.iter().flatten().copied().collect());
    graph.set_outputs(outputs.unwrap_or_default());
    graph.prune();
    graph.prune_inputs(&[]);
    typed(&graph)
}

/// Small exported models without their weights, once as they are and once fully typed.
fn exported() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for folder in fs::read_dir(EXPORTED).unwrap().flatten().filter(|f| f.path().is_dir()) {
        let files = fs::read_dir(folder.path()).unwrap().flatten().map(|f| f.path());
        for file in files.filter(|f| f.extension().is_some_and(|e| e == "onnx")) {
            let mut graph = Graph::read(&file).unwrap();
            let shapes = graph.inputs().iter().map(|&v| (graph.value_name(v).into(), vec![2, 5]));
            let shapes: BTreeMap<String, Vec<usize>> = shapes.collect();
            let params: Vec<ValueId> = find_parameters(&graph).iter().map(|p| p.value).collect();
            make_inputs(&mut graph, &params).unwrap();
            graph.prune();
            seeds.push(graph.to_bytes().unwrap());
            let whole = fix_shapes_and_types(&graph, &shapes);
            seeds.extend(whole.and_then(|g| typed(&g)));
        }
    }
    seeds
}

/// The graph as a file that states the types of all values.
fn typed(graph: &Graph) -> Result<Vec<u8>> {
    // A graph with all values as outputs writes their types; they are moved from there.
    let mut all = graph.clone();
    let made = graph.nodes().iter().flat_map(|n| n.outputs.iter().flatten().copied());
    all.set_outputs(made.filter(|v| !graph.outputs().contains(v)).collect());
    let infos = ModelProto::decode(&all.to_bytes()?[..]).unwrap().graph.unwrap().output;
    let mut model = ModelProto::decode(&graph.to_bytes()?[..]).unwrap();
    let stated = infos.into_iter().filter(|i| i.r#type.is_some());
    model.graph.as_mut().unwrap().value_info.extend(stated);
    Ok(model.encode_to_vec())
}

fn node(op: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        domain: domain.into(),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

/// x and w of shape [2, 3], a boolean, and an output y.
fn start() -> ModelProto {
    let mut g = Graph::new("start", 17);
    let float = ValueType::known(DType::F32, &[2, 3]);
    let x = g.add_input("x", float.clone()).unwrap();
    g.add_input("condition", ValueType::known(DType::Bool, &[])).unwrap();
    let w = TensorData::from_slice(&[2, 3], &[0.5f32, -1.0, 2.0, 0.1, 0.2, 0.3]).unwrap();
    let w = g.add_initializer("w", w).unwrap();
    let y = g.op("Mul", &[x, w], []);
    g.rename(y, "y").unwrap();
    g.set_type(y, float);
    g.add_output(y);
    ModelProto::decode(&g.to_bytes().unwrap()[..]).unwrap()
}

/// y = condition ? tanh(x + w) w : w x, with another branch within the first one.
fn branches() -> Vec<u8> {
    let mut model = start();
    let graph = model.graph.as_mut().unwrap();
    let ty = graph.output[0].r#type.clone();
    let info = |name: &str| ValueInfoProto { name: name.into(), r#type: ty.clone() };
    let attribute = |name: &str, g: GraphProto| AttributeProto {
        name: name.into(),
        r#type: 5,
        g: Some(g),
        ..AttributeProto::default()
    };
    let body = |nodes: Vec<NodeProto>, output: &str, inner: &[&str]| GraphProto {
        name: "body".into(),
        node: nodes,
        output: vec![info(output)],
        value_info: inner.iter().map(|n| info(n)).collect(),
        ..GraphProto::default()
    };
    let choose = |output: &str, yes: GraphProto, no: GraphProto| {
        let mut node = node("If", "", &["condition"], &[output]);
        node.attribute = vec![attribute("then_branch", yes), attribute("else_branch", no)];
        node
    };
    let deep = choose(
        "b",
        body(vec![node("Tanh", "", &["a"], &["c"])], "c", &[]),
        body(vec![node("Relu", "", &["a"], &["c"])], "c", &[]),
    );
    let first =
        vec![node("Add", "", &["x", "w"], &["a"]), deep, node("Mul", "", &["b", "w"], &["d"])];
    let yes = body(first, "d", &["a", "b"]);
    let no = body(vec![node("Mul", "", &["w", "x"], &["d"])], "d", &[]);
    graph.node = vec![choose("y", yes, no)];
    model.encode_to_vec()
}

/// y = twice(x, w), a function that calls another one.
fn calls() -> Vec<u8> {
    let mut model = start();
    model.graph.as_mut().unwrap().node = vec![node("twice", "own", &["x", "w"], &["y"])];
    let import = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    model.opset_import.push(import("own", 1));
    let function = |name: &str, nodes: Vec<NodeProto>| FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: vec!["a".into(), "b".into()],
        output: vec!["c".into()],
        node: nodes,
        opset_import: vec![import("", 17), import("own", 1)],
        ..FunctionProto::default()
    };
    let once = vec![node("Mul", "", &["a", "b"], &["d"]), node("Tanh", "", &["d"], &["c"])];
    let twice =
        vec![node("once", "own", &["a", "b"], &["d"]), node("once", "own", &["d", "b"], &["c"])];
    model.functions = vec![function("once", once), function("twice", twice)];
    model.encode_to_vec()
}

//! Cases of `Scan` and `Loop`: states, slices along any axis and from either end, weights that steps multiply
//! by or read in another way.

use mmopt::error::Kind;
use mmopt::onnx::Attribute;
use mmopt::onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use mmopt::tensor::DType;

use super::bodies::{branch, node, two};
use super::case::{Case, case};
use crate::runtime;

/// A step with inputs, nodes and outputs, by name.
fn step(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let infos = |names: &[&str]| {
        names.iter().map(|n| ValueInfoProto { name: (*n).into(), r#type: None }).collect()
    };
    GraphProto {
        name: "step".into(),
        input: infos(inputs),
        node: nodes,
        output: infos(outputs),
        ..GraphProto::default()
    }
}

fn scan(body: GraphProto, n_scanned: i64) -> Case {
    case("Scan").body("body", body).int("num_scan_inputs", n_scanned)
}

/// h' = tanh(x + h w), also put out.
fn cell() -> GraphProto {
    let nodes = vec![
        node("MatMul", &["h", "w"], &["product"]),
        node("Add", &["x", "product"], &["sum"]),
        node("Tanh", &["sum"], &["next"]),
        node("Identity", &["next"], &["y"]),
    ];
    step(&["h", "x"], nodes, &["next", "y"])
}

fn with(mut node: NodeProto, attribute: (&str, Attribute)) -> NodeProto {
    let mut proto = AttributeProto { name: attribute.0.into(), ..AttributeProto::default() };
    match attribute.1 {
        Attribute::Int(i) => (proto.r#type, proto.i) = (2, Some(i)),
        Attribute::Graph(g) => (proto.r#type, proto.g) = (5, Some(*g)),
        other => panic!("{other:?}"),
    }
    node.attribute.push(proto);
    node
}

pub fn cases() -> Vec<Case> {
    let recurrent = || scan(cell(), 1).x(&[2, 3]).x(&[4, 2, 3]).captured("w", &[3, 3]);
    let mut cases = vec![
        recurrent().outputs(2, &[0, 1]),
        recurrent().outputs(2, &[0]),
        recurrent().outputs(2, &[1]),
        recurrent().outputs(2, &[0, 1]).opset(21),
        scan(cell(), 1).x(&[2, 3]).x(&[1, 2, 3]).captured("w", &[3, 3]).outputs(2, &[0, 1]),
    ];
    for (back, collected_back) in [(0, 1), (1, 0), (1, 1)] {
        let case = scan(cell(), 1).x(&[2, 3]).x(&[2, 4, 3]).captured("w", &[3, 3]);
        let case = case.list("scan_input_axes", &[1]).list("scan_output_axes", &[-1]);
        let case = case.list("scan_input_directions", &[back]);
        cases.push(case.list("scan_output_directions", &[collected_back]).outputs(2, &[0, 1]));
    }
    cases.extend(bodies());
    cases
}

fn bodies() -> Vec<Case> {
    // A weight that is also read otherwise, one that is added, and one that only scales.
    let nodes = vec![
        node("MatMul", &["h", "w"], &["product"]),
        node("Mul", &["product", "w"], &["scaled"]),
        node("Add", &["scaled", "b"], &["sum"]),
        node("Mul", &["sum", "x"], &["next"]),
    ];
    let mixed = step(&["h", "x"], nodes, &["next"]);
    // Nothing of the forward step is read by the gradient.
    let plain = step(&["h", "x"], vec![node("Add", &["h", "b"], &["next"])], &["next"]);
    // The same value twice, a state that is handed on, and a slice that is put out.
    let handed = step(
        &["h", "c", "x"],
        vec![node("Mul", &["h", "x"], &["next"])],
        &["next", "c", "next", "x", "c"],
    );
    // Two states that exchange places: gradients reach the second one by the first.
    let nodes = vec![
        node("Sin", &["a"], &["other"]),
        node("Mul", &["b", "x"], &["next"]),
        node("Exp", &["n"], &["unread"]),
    ];
    let exchanged = step(&["a", "b", "n", "x"], nodes, &["next", "other", "n"]);
    // A count that decides a branch.
    let nodes = vec![
        node("Mul", &["n", "n"], &["square"]),
        node("Greater", &["n", "square"], &["late"]),
        node("Sub", &["n", "square"], &["m"]),
        conditional(),
    ];
    let counted = step(&["h", "n", "x"], nodes, &["next", "m"]);
    // Rows of a table by what is scanned.
    let nodes = vec![node("Gather", &["w", "i"], &["row"]), node("Mul", &["h", "row"], &["next"])];
    let looked_up = step(&["h", "i"], nodes, &["next"]);
    // Steps within steps.
    let inner = step(
        &["k", "z"],
        vec![node("MatMul", &["k", "w"], &["p"]), node("Mul", &["p", "z"], &["q"])],
        &["q"],
    );
    let nested =
        with(node("Scan", &["h", "x"], &["next"]), ("body", Attribute::Graph(Box::new(inner))));
    let nested = with(nested, ("num_scan_inputs", Attribute::Int(1)));
    let nested = step(&["h", "x"], vec![nested], &["next"]);
    let one = || case("Scan").captured("w", &[2, 2]);
    vec![
        scan(mixed, 1).x(&[2, 2]).x(&[3, 2, 2]).captured("w", &[2, 2]).captured("b", &[2]),
        scan(plain, 1).x(&[2]).x(&[3, 1]).captured("b", &[2]),
        scan(handed, 1).x(&[2]).x(&[3]).x(&[4, 2]).outputs(5, &[0, 1, 2, 3, 4]),
        scan(exchanged, 1)
            .fixed(&[2], &[0.0; 2])
            .x(&[2])
            .fixed(&[1], &[1.0])
            .x(&[3, 2])
            .outputs(3, &[0]),
        scan(counted, 1).x(&[2]).ints_of(&[1], &[2]).x(&[4, 2]).outputs(2, &[0]),
        one().body("body", looked_up).int("num_scan_inputs", 1).x(&[2]).ints_of(&[3], &[1, 0, 1]),
        one().body("body", nested).int("num_scan_inputs", 1).x(&[3, 2]).x(&[2, 4, 3, 2]),
    ]
}

/// next = late ? sin(h) : h x
fn conditional() -> NodeProto {
    let yes = branch(vec![node("Sin", &["h"], &["then"])], Vec::new(), "then");
    let no = branch(vec![node("Mul", &["h", "x"], &["else"])], Vec::new(), "else");
    let both =
        with(node("If", &["late"], &["next"]), ("then_branch", Attribute::Graph(Box::new(yes))));
    with(both, ("else_branch", Attribute::Graph(Box::new(no))))
}

fn looped(mut body: GraphProto, steps: i64) -> Case {
    typed(&mut body);
    case("Loop").body("body", body).ints_of(&[], &[steps])
}

/// Gives the number of the step and the condition their types, without which runtimes refuse a
/// body where the node does not have them.
fn typed(body: &mut GraphProto) {
    for (info, dtype) in body.input.iter_mut().zip([DType::I64, DType::Bool]) {
        let shape = Some(TensorShapeProto::default());
        let tensor = type_proto::Tensor { elem_type: dtype.onnx(), shape };
        info.r#type = Some(TypeProto { value: Some(type_proto::Value::Tensor(tensor)) });
    }
}

pub fn loops() -> Vec<Case> {
    // h' = sin(h w) + x[i], which is put out, and the condition handed on.
    let cell = || {
        let nodes = vec![
            node("MatMul", &["h", "w"], &["product"]),
            node("Sin", &["product"], &["part"]),
            node("Gather", &["x", "i"], &["row"]),
            node("Add", &["part", "row"], &["next"]),
            node("Identity", &["on"], &["still"]),
        ];
        step(&["i", "on", "h"], nodes, &["still", "next", "next"])
    };
    let recurrent = |steps| {
        let case = looped(cell(), steps).bools(&[], &[1]).x(&[2, 3]);
        case.captured("w", &[3, 3]).captured("x", &[900, 3]).either(0.1, 0.4)
    };
    // A state that grows by a slice whose place is the step's number.
    let nodes = vec![
        node("Unsqueeze", &["i", "zero"], &["from"]),
        node("Add", &["from", "one"], &["to"]),
        node("Slice", &["x", "from", "to"], &["row"]),
        node("Mul", &["row", "b"], &["scaled"]),
        with(node("Concat", &["h", "scaled"], &["next"]), ("axis", Attribute::Int(0))),
    ];
    let mut growing = step(&["i", "on", "h"], nodes, &["on", "next"]);
    growing.initializer = vec![ints("zero", &[0]), ints("one", &[1])];
    // Loops within loops.
    let mut inner = step(&["j", "go", "k"], vec![node("Mul", &["k", "w"], &["q"])], &["go", "q"]);
    typed(&mut inner);
    let nested =
        with(node("Loop", &["two", "", "h"], &["p"]), ("body", Attribute::Graph(Box::new(inner))));
    let nested =
        step(&["i", "on", "h"], vec![nested, node("Sin", &["p"], &["next"])], &["on", "next"]);
    vec![
        recurrent(3).outputs(2, &[0, 1]),
        recurrent(1).outputs(2, &[0]),
        // Too long to be written out.
        recurrent(900).outputs(2, &[0, 1]).loose(100.0),
        looped(growing, 3).none().x(&[1, 2]).captured("x", &[4, 2]).captured("b", &[2]),
        looped(nested, 2).none().x(&[2]).captured("w", &[2]).named("two", &[2]),
    ]
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DType::I64.onnx(),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// What decides how often a loop runs must not depend on data.
#[test]
fn loops_of_unknown_length_are_refused() {
    let nodes = vec![
        node("Mul", &["h", "w"], &["next"]),
        node("ReduceMax", &["next"], &["most"]),
        node("Less", &["most", "bound"], &["still"]),
    ];
    let mut open = step(&["i", "on", "h"], nodes, &["still", "next"]);
    open.initializer = vec![two("bound")];
    let case = looped(open, 5).bools(&[], &[1]).x(&[2]).captured("w", &[2]);
    if runtime() {
        let e = case.check().unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.message().contains("'tested' (Loop") && e.message().contains("condition"), "{e}");
    }
}

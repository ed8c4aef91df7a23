//! Gradients of exported models against reference gradients, as the tool `check_gradients`
//! compares them: the models in tests/data, and all of ../shared/oracle where that is present.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::runtime;
use std::path::Path;

use mmopt::error::Kind;
use mmopt::onnx::{Graph, MMOPT_DOMAIN};
use mmopt::optim::AttentionForm;
use mmopt::runtime::Device;
use mmopt_tools::oracle::Oracle;

const BOUND: f64 = 1e-4;

/// Checks every file below `root`; returns how many there were.
fn check(root: &Path) -> usize {
    check_with(root, AttentionForm::Auto)
}

fn check_with(root: &Path, attention: AttentionForm) -> usize {
    let mut failures = Vec::new();
    let mut n = 0;
    let entries = std::fs::read_dir(root).unwrap().flatten().map(|e| e.path());
    for folder in entries.filter(|p| p.join("oracle.json").is_file()) {
        let mut oracle = Oracle::read(&folder, Device::Cpu).unwrap();
        oracle.attention = attention;
        for file in oracle.files("") {
            n += 1;
            match oracle.check(&file) {
                Ok(o) if o.compared == 0 => failures.push(format!("{}: empty", file.display())),
                Ok(o) if o.loss_error <= BOUND && o.worst_error <= BOUND => {}
                Ok(o) => failures.push(format!(
                    "{}: loss {:.1e}, {} {:.1e}",
                    file.display(),
                    o.loss_error,
                    o.worst,
                    o.worst_error
                )),
                Err(e) => failures.push(format!("{}: {e}", file.display())),
            }
        }
        for file in oracle.files("invalid") {
            n += 1;
            if oracle.training_graph(&file).is_ok() {
                failures.push(format!("{}: accepted", file.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    n
}

#[test]
fn bundled_models() {
    if runtime() {
        assert_eq!(check(Path::new("tests/data/oracle")), 7);
    }
}

/// Operators of this library in a training graph.
fn count(bytes: &[u8], op: &str) -> usize {
    let graph = Graph::from_bytes(bytes.to_vec().into()).unwrap();
    graph.nodes().iter().filter(|n| n.domain == MMOPT_DOMAIN && n.op == op).count()
}

/// Spellings of attention that exporters have are found, in both parts of the graph, and have the
/// reference's gradients. What ONNX's own `Attention` becomes multiplies probabilities by a mask of
/// truth values, and stays.
#[test]
fn bundled_models_with_fused_attention() {
    if !runtime() {
        return;
    }
    for root in [Path::new("tests/data/oracle")] {
        assert!(check_with(root, AttentionForm::Fused) >= 7);
        let entries = std::fs::read_dir(root).unwrap().flatten().map(|e| e.path());
        for folder in entries.filter(|p| p.join("oracle.json").is_file()) {
            let mut oracle = Oracle::read(&folder, Device::Cpu).unwrap();
            oracle.attention = AttentionForm::Fused;
            for file in oracle.files("") {
                let (_, _, training) = oracle.training_graph(&file).unwrap();
                let n = ["FusedAttention", "FusedAttentionGrad"];
                let n = n.map(|op| count(&training.bytes, op));
                println!("{}: {n:?}", file.display());
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let is_found = !["op23", "opdef"].iter().any(|part| name.contains(part));
                assert!(n[0] == n[1] && (n[0] >= 2) == is_found, "{}: {n:?}", file.display());
            }
        }
    }
}

#[test]
fn all_models() {
    let root = Path::new("../shared/oracle");
    if !root.is_dir() {
        eprintln!("not run: no {}", root.display());
        return;
    }
    if runtime() {
        assert!(check(root) > 100);
    }
}

/// Operators that exports meet and that have no rule come with what to do instead.
#[test]
fn what_has_no_rule_comes_with_advice() {
    use mmopt::autodiff::check_operators;
    use mmopt::onnx::{Node, TensorData};
    for (op, part) in [
        ("AffineGrid", "use Resize"),
        ("Col2Im", "ConvTranspose"),
        ("DequantizeLinear", "quantised weights are not trainable"),
        ("RoiAlign", "freeze what is before it"),
        ("SequenceMap", "loop written out"),
    ] {
        let mut g = Graph::new("odd", 17);
        let w = TensorData::from_slice(&[2], &[1f32, 2.0]).unwrap();
        let w = g.add_initializer("w", w).unwrap();
        let y = g.add_value("y").unwrap();
        g.push_node(Node {
            name: "here".into(),
            op: op.into(),
            domain: String::new(),
            inputs: vec![Some(w)],
            outputs: vec![Some(y)],
            attributes: Default::default(),
        });
        let e = check_operators(&g, y, &[w]).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        for part in [part, op, "node 0 'here'"] {
            assert!(e.message().contains(part), "{part}: {e}");
        }
    }
}

/// An operator without a rule is told with model, node, operator and opset, and nothing is built.
#[test]
fn what_has_no_rule_is_named() {
    use mmopt::autodiff::{check_differentiable, differentiate};
    use mmopt::onnx::{Build, Node, TensorData};
    let mut g = Graph::new("odd", 17);
    let w = g.add_initializer("w", TensorData::from_slice(&[2], &[1f32, 2.0]).unwrap()).unwrap();
    let y = g.add_value("y").unwrap();
    g.push_node(Node {
        name: "here".into(),
        op: "Det".into(),
        domain: String::new(),
        inputs: vec![Some(w)],
        outputs: vec![Some(y)],
        attributes: Default::default(),
    });
    g.set_type(y, mmopt::onnx::ValueType::known(mmopt::tensor::DType::F32, &[2]));
    let mut b = Build::new(&mut g);
    let loss = b.reduce("ReduceSum", y, &[0], false).unwrap();
    let before = g.to_bytes().unwrap();
    let e = differentiate(&mut g, loss, &[w]).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    for part in ["model 'odd'", "node 0 'here'", "Det", "opset 17"] {
        assert!(e.message().contains(part), "{e}");
    }
    assert_eq!(g.to_bytes().unwrap(), before);
    assert_eq!(check_differentiable(&g, loss, &[w]).unwrap_err().kind(), Kind::Unsupported);
}

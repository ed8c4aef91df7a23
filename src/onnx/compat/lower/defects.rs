//! Forms of operators that older runtimes compute wrongly. There they are rewritten also where
//! nothing is differentiated, so that evaluation and prediction are right.

use super::{constants_to_initializers, rewrite};
use crate::error::{Error, Result};
use crate::onnx::{Build, Graph, Node, NodeId};
use crate::tensor::DType;

/// Major, minor and patch version of ONNX Runtime.
type Version = (u32, u32, u32);

/// A form that runtimes before `fixed` compute wrongly.
struct Defect {
    domain: &'static str,
    op: &'static str,
    fixed: Version,
    applies: fn(&Graph, &Node) -> bool,
    /// The form, in words that go with the operator's name.
    form: &'static str,
}

const MICROSOFT: &str = "com.microsoft";

/// The versions are the first that were seen to be right.
const DEFECTS: &[Defect] = &[
    Defect {
        domain: MICROSOFT,
        op: "SkipSimplifiedLayerNormalization",
        fixed: (1, 24, 0),
        applies: |_, node| node.input(3).is_some(),
        form: "with a bias",
    },
    Defect {
        domain: MICROSOFT,
        op: "Attention",
        fixed: (1, 24, 0),
        applies: |_, node| node.input(5).is_some(),
        form: "with an attention bias",
    },
    Defect {
        domain: MICROSOFT,
        op: "MultiHeadAttention",
        fixed: (1, 24, 0),
        applies: |_, node| node.input(4).is_some() || node.input(5).is_some(),
        form: "with key padding or an attention bias",
    },
    Defect {
        domain: "",
        op: "Attention",
        fixed: (1, 32, 0),
        applies: |graph, node| {
            let dtype = |v| graph.value(v).ty.dtype;
            node.input(3).is_some_and(|mask| dtype(mask).is_none_or(|d| d == DType::Bool))
        },
        form: "with a mask of truth values",
    },
    Defect {
        domain: "",
        op: "Attention",
        fixed: (1, 32, 0),
        applies: |_, node| node.input(4).is_some() && node.output(1).is_none(),
        form: "with past keys, but without present ones",
    },
    // It also reads what lies behind the signal.
    Defect {
        domain: "",
        op: "STFT",
        fixed: (1, 32, 0),
        applies: |graph, node| {
            let shape = node.input(0).and_then(|x| graph.value(x).ty.static_shape());
            shape.is_none_or(|s| s.len() == 3 && s[2] == 2)
        },
        form: "of complex numbers",
    },
];

fn find(graph: &Graph, node: &Node, version: Version) -> Option<&'static Defect> {
    DEFECTS.iter().find(|d| {
        (d.domain, d.op) == (node.domain.as_str(), node.op.as_str())
            && version < d.fixed
            && (d.applies)(graph, node)
    })
}

/// Rewrites what ONNX Runtime of that version computes wrongly, on a graph with known types.
/// Nothing changes on failure.
///
/// # Errors
/// `Unsupported` where the form cannot be rewritten; it names node, operator and the version that
/// is needed.
pub fn lower_defects(graph: &mut Graph, version: Version) -> Result<()> {
    if !graph.nodes().iter().any(|node| find(graph, node, version).is_some()) {
        return Ok(());
    }
    let mut work = graph.clone();
    constants_to_initializers(&mut work);
    let ids: Vec<NodeId> = work.node_ids().collect();
    let mut g = Build::new(&mut work);
    for id in ids {
        let Some(defect) = find(g.graph(), g.graph().node(id), version) else { continue };
        let place = g.graph().describe(id);
        let done = rewrite(&mut g, id).and_then(|done| {
            if done { Ok(()) } else { Err(Error::unsupported("there is no rewrite of it")) }
        });
        done.map_err(|e| refusal(&place, defect, version, e))?;
    }
    work.sort()?;
    *graph = work;
    Ok(())
}

fn refusal(place: &str, defect: &Defect, (major, minor, patch): Version, cause: Error) -> Error {
    let (new_major, new_minor, _) = defect.fixed;
    Error::unsupported(format!(
        "{place}: ONNX Runtime {major}.{minor}.{patch} computes {} {} wrongly, and it cannot be \
         rewritten ({}); load ONNX Runtime {new_major}.{new_minor} or newer",
        defect.op,
        defect.form,
        cause.message()
    ))
    .with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::onnx::{TensorData, ValueType};

    /// A short-time Fourier transform of two frames.
    fn transform(parts: usize, width: &[i64]) -> Graph {
        let mut g = Graph::new("g", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[1, 6, parts])).unwrap();
        let step = g.add_initializer("step", TensorData::ints(&[2])).unwrap();
        let window = TensorData::from_slice(&[4], &[1f32; 4]).unwrap();
        let window = g.add_initializer("window", window).unwrap();
        let width = g.add_initializer("width", TensorData::ints(width)).unwrap();
        let y = g.op("STFT", &[x, step, window, width], []);
        g.rename(y, "y").unwrap();
        g.add_output(y);
        g
    }

    fn ops(g: &Graph) -> Vec<&str> {
        g.nodes().iter().map(|n| n.op.as_str()).collect()
    }

    #[test]
    fn a_wrong_form_is_rewritten_where_it_is_wrong() {
        let mut old = transform(2, &[4]);
        lower_defects(&mut old, (1, 31, 9)).unwrap();
        assert!(ops(&old).contains(&"DFT") && !ops(&old).contains(&"STFT"), "{:?}", ops(&old));
        for (parts, version) in [(2, (1, 32, 0)), (1, (1, 19, 2))] {
            let mut kept = transform(parts, &[4]);
            lower_defects(&mut kept, version).unwrap();
            assert_eq!(ops(&kept), ["STFT"]);
        }
    }

    #[test]
    fn what_cannot_be_rewritten_is_refused_and_stays() {
        let mut g = transform(2, &[9]);
        let e = lower_defects(&mut g, (1, 24, 4)).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        for part in ["STFT", "1.24.4", "of complex numbers", "9 places in 6", "1.32 or newer"] {
            assert!(e.message().contains(part), "{part}: {e}");
        }
        assert_eq!(ops(&g), ["STFT"]);
    }
}

//! Spellings of attention that are found, and what stays as it is.

use super::*;

const QUERIES: usize = 6;
const KEYS: usize = 7;

/// How one attention is spelled.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    OnScores,
    OnQueriesAndKeys,
    None,
}

#[derive(Clone, Copy)]
struct Spelling {
    scale: Scale,
    /// Whether the keys are transposed as three axes.
    by_three_axes: bool,
    mask: Option<&'static [usize]>,
    /// Whether a `Where` puts the mask's number in place of a score.
    chosen: bool,
    nans: bool,
    dropout: bool,
    /// Whether the result has another name before it is turned back.
    renamed: bool,
}

const PLAIN: Spelling = Spelling {
    scale: Scale::None,
    by_three_axes: false,
    mask: None,
    chosen: false,
    nans: false,
    dropout: false,
    renamed: false,
};

struct Written {
    graph: Graph,
    params: Vec<ValueId>,
    probabilities: ValueId,
    scores: ValueId,
    mask: Option<ValueId>,
}

/// Queries, keys and values are inputs [2, length, 3, 4]; the output is like the queries.
fn write(of: Spelling) -> Written {
    let mut graph = Graph::new("attention", 17);
    graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
    let f32s = |shape: &[usize]| ValueType::known(DType::F32, shape);
    let [q, k, v] = [("q", QUERIES), ("k", KEYS), ("v", KEYS)]
        .map(|(name, n)| graph.add_input(name, f32s(&[2, n, 3, 4])).unwrap());
    let mask = of.mask.map(|shape| {
        let dtype = if of.chosen { DType::Bool } else { DType::F32 };
        graph.add_input("mask", ValueType::known(dtype, shape)).unwrap()
    });
    let seed = graph.add_input("seed", ValueType::known(DType::I64, &[1])).unwrap();
    let mut b = Build::new(&mut graph);
    let mut q4 = b.transpose(q, &[0, 2, 1, 3]).unwrap();
    let mut kt = if of.by_three_axes {
        let k4 = b.transpose(k, &[0, 2, 1, 3]).unwrap();
        let flat = b.reshape(k4, &[6, KEYS, 4]).unwrap();
        let turned = b.transpose(flat, &[0, 2, 1]).unwrap();
        b.reshape(turned, &[2, 3, 4, KEYS]).unwrap()
    } else {
        b.transpose(k, &[0, 2, 3, 1]).unwrap()
    };
    if of.scale == Scale::OnQueriesAndKeys {
        (q4, kt) = (b.scale(q4, 0.5).unwrap(), b.scale(kt, 0.5).unwrap());
    }
    let product = b.matmul(q4, kt).unwrap();
    let mut scores = product;
    if of.scale == Scale::OnScores {
        let four = b.number(DType::F32, 4.0).unwrap();
        scores = b.div(scores, four).unwrap();
    }
    if let Some(mask) = mask {
        scores = if of.chosen {
            let low = b.number(DType::F32, f64::from(f32::MIN)).unwrap();
            b.select(mask, scores, low).unwrap()
        } else {
            b.add(mask, scores).unwrap()
        };
    }
    let mut p = b.softmax("Softmax", scores, 3).unwrap();
    let probabilities = p;
    if of.nans {
        let shape = b.shape(p).unwrap();
        let test = b.emit("IsNaN", &[p], (DType::Bool, &shape), []);
        let zero = b.number(DType::F32, 0.0).unwrap();
        p = b.select(test, zero, p).unwrap();
    }
    if of.dropout {
        let shape = b.shape(p).unwrap();
        let ratio = [("ratio", Attribute::Float(0.1)), ("salt", Attribute::Int(9))];
        p = b.emit("Dropout", &[p, seed], (DType::F32, &shape), ratio);
        let id = b.graph().node_ids().next_back().unwrap();
        b.graph_mut().node_mut(id).domain = MMOPT_DOMAIN.into();
    }
    let v4 = b.transpose(v, &[0, 2, 1, 3]).unwrap();
    let mut y = b.matmul(p, v4).unwrap();
    if of.renamed {
        let shape = b.ints(&[2, 3, QUERIES as i64, 4]).unwrap();
        y = b.emit("Reshape", &[y, shape], (DType::F32, &[2, 3, QUERIES, 4]), []);
    }
    let y = b.transpose(y, &[0, 2, 1, 3]).unwrap();
    graph.add_output(y);
    Written { graph, params: vec![q, k, v], probabilities, scores: product, mask }
}

fn fused(of: &mut Written, form: AttentionForm) -> usize {
    let n = fuse(&mut of.graph, &of.params, form).unwrap();
    of.graph.sort().unwrap();
    n
}

/// The graph is one operator of the inputs as they are, and another name of its result.
fn check(of: Spelling) -> Node {
    let mut written = write(of);
    assert_eq!(fused(&mut written, AttentionForm::Fused), 1);
    let graph = &written.graph;
    let ops: Vec<&str> = graph.nodes().iter().map(|n| n.op.as_str()).collect();
    let expected = ["Where", "FusedAttention", "Identity"];
    assert_eq!(ops, expected[usize::from(!of.chosen)..]);
    let node = graph.nodes().iter().find(|n| n.op == "FusedAttention").unwrap().clone();
    let inputs: Vec<ValueId> = (0..3).map(|i| node.input(i).unwrap()).collect();
    assert_eq!(inputs, written.params);
    let last = graph.producers()[graph.outputs()[0].index()].unwrap().0;
    assert_eq!(graph.node(last).op, "Identity");
    assert_eq!(graph.node(last).input(0), node.output(0));
    node
}

#[test]
fn spellings_are_found() {
    for (of, scale) in [
        (PLAIN, 1.0),
        (Spelling { scale: Scale::OnScores, mask: Some(&[2, 1, 1, KEYS]), ..PLAIN }, 0.25),
        (Spelling { scale: Scale::OnQueriesAndKeys, mask: Some(&[QUERIES, KEYS]), ..PLAIN }, 0.25),
        (Spelling { mask: Some(&[1, 1, QUERIES, KEYS]), chosen: true, ..PLAIN }, 1.0),
        (Spelling { by_three_axes: true, scale: Scale::OnQueriesAndKeys, ..PLAIN }, 0.25),
        (Spelling { nans: true, mask: Some(&[2, 1, QUERIES, KEYS]), renamed: true, ..PLAIN }, 1.0),
        (Spelling { dropout: true, nans: true, ..PLAIN }, 1.0),
        (Spelling { dropout: true, scale: Scale::OnScores, ..PLAIN }, 0.25),
    ] {
        let node = check(of);
        assert_eq!(node.float("scale"), Some(scale));
        assert_eq!(node.int("empty_is_zero"), Some(of.nans.into()));
        let (ratio, salt) = if of.dropout { (0.1, 9) } else { (0.0, 0) };
        assert_eq!((node.float("ratio"), node.int("salt")), (Some(ratio), Some(salt)));
    }
}

/// Masks that are learned, and probabilities or scores that somebody else reads.
#[test]
fn what_the_operator_does_not_give_stays() {
    let masked = Spelling { mask: Some(&[2, 3, QUERIES, KEYS]), ..PLAIN };
    // Broadcast, so that it cannot be taken for the scores.
    let broadcast = Spelling { mask: Some(&[1, 1, QUERIES, KEYS]), ..PLAIN };
    assert_eq!(fused(&mut write(broadcast), AttentionForm::Fused), 1);
    let mut learned = write(broadcast);
    learned.params.extend(learned.mask);
    let mut shown = write(masked);
    let p = shown.probabilities;
    shown.graph.add_output(p);
    let mut read = write(masked);
    let sum = Build::new(&mut read.graph).reduce("ReduceSum", read.scores, &[3], false).unwrap();
    read.graph.add_output(sum);
    for mut of in [learned, shown, read] {
        let before = of.graph.to_bytes().unwrap();
        assert_eq!(fused(&mut of, AttentionForm::Fused), 0);
        assert!(of.graph.to_bytes().unwrap() == before);
    }
    assert_eq!(fused(&mut write(masked), AttentionForm::Unfused), 0);
    // Too few scores for it to be worth it.
    assert_eq!(fused(&mut write(masked), AttentionForm::Auto), 0);
}

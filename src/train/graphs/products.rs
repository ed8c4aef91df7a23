//! Products of matrices, which take most of a pass, as operators of this library: in bf16
//! (`mmopt.MatMulBf16`, `mmopt.GemmBf16`), which round both factors and add up in f32, or in f32
//! (`mmopt.MatMulF32`, `mmopt.GemmF32`). All values stay f32: parameters, gradients, moments, and
//! everything between two products.

use crate::error::Result;
use crate::onnx::{Attribute, Build, Graph, MMOPT_DOMAIN, Node, NodeId, ValueId, ValueType};
use crate::tensor::DType;

/// What makes the large products of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// The runtime, in f32.
    #[default]
    Runtime,
    /// Operators of this library, in f32.
    F32,
    /// The same in bf16.
    Bf16,
}

impl Products {
    /// Whether a product of such sizes is one of theirs: rows, columns, length of the sums. In
    /// bf16, products that are smaller along an axis, or in multiplications, take no time, and
    /// some of them, like those of a head with two classes, are better exact. In f32 smaller ones
    /// take no time either, and the runtime's are as fast where columns are not whole vectors and
    /// few of them use what is copied of a factor.
    fn take(self, (m, n, k): (usize, usize, usize)) -> bool {
        let work = m.saturating_mul(n).saturating_mul(k);
        match self {
            Self::Runtime => false,
            Self::F32 if n.is_multiple_of(16) => m.min(n).min(k) >= 64 && work >= 1 << 21,
            Self::F32 => m >= 128 && n >= 256 && k >= 64 && work >= 1 << 24,
            Self::Bf16 => m.min(n).min(k) >= 16 && work >= 1 << 18,
        }
    }

    fn operator(self, has_row: bool) -> &'static str {
        match (self, has_row) {
            (Self::Bf16, false) => "MatMulBf16",
            (Self::Bf16, true) => "GemmBf16",
            (_, false) => "MatMulF32",
            (_, true) => "GemmF32",
        }
    }
}

/// A factor as a matrix, and whether the product takes its transpose.
type Factor = (ValueId, bool);

struct Product {
    a: Factor,
    b: Factor,
    /// Rows, columns, and the length of the sums.
    sizes: (usize, usize, usize),
    /// What the result is multiplied by.
    alpha: f32,
    /// A row that is added to each row of the result, and its factor.
    row: Option<(ValueId, f32)>,
}

/// Rewrites the graph's large products of f32 matrices of known shapes.
pub(super) fn rewrite_products(graph: &mut Graph, products: Products) -> Result<()> {
    if products == Products::Runtime {
        return Ok(());
    }
    // Of the graph as it is: what is rewritten reads and makes the same values.
    let uses = Uses { producers: graph.producers(), consumers: graph.consumers() };
    let ids: Vec<NodeId> = graph.node_ids().collect();
    for id in ids {
        let mut product = match uses.product_of(graph, id) {
            Some(product) if products.take(product.sizes) => product,
            _ => continue,
        };
        let mut at = id;
        if product.row.is_none()
            && let Some((sum, row)) = uses.added_row(graph, id, product.sizes.1)
        {
            product.row = Some((row, 1.0));
            at = sum;
        }
        replace(graph, at, product, products)?;
    }
    Ok(())
}

fn shape(graph: &Graph, v: ValueId) -> Option<Vec<usize>> {
    let ty = &graph.value(v).ty;
    (ty.dtype == Some(DType::F32)).then(|| ty.static_shape()).flatten()
}

/// Who makes and who reads each value.
struct Uses {
    producers: Vec<Option<(NodeId, usize)>>,
    consumers: Vec<Vec<(NodeId, usize)>>,
}

impl Uses {
    /// The matrix that `v` is the transpose of.
    fn transposed(&self, graph: &Graph, v: ValueId) -> Option<ValueId> {
        let (id, _) = self.producers[v.index()]?;
        let node = graph.node(id);
        let turns = node.op == "Transpose" && node.domain.is_empty();
        let swaps = node.ints("perm").is_none_or(|p| p == [1, 0]);
        let from = node.input(0).filter(|_| turns && swaps)?;
        (shape(graph, from)?.len() == 2).then_some(from)
    }

    fn factor(&self, graph: &Graph, v: ValueId) -> Factor {
        self.transposed(graph, v).map_or((v, false), |from| (from, true))
    }

    /// The product that a node is, if its second factor is one matrix.
    fn product_of(&self, graph: &Graph, id: NodeId) -> Option<Product> {
        let node = graph.node(id);
        if !node.domain.is_empty() || node.outputs.len() != 1 {
            return None;
        }
        let (a, b) = (node.input(0)?, node.input(1)?);
        let (a_shape, b_shape) = (shape(graph, a)?, shape(graph, b)?);
        let &[b0, b1] = &b_shape[..] else { return None };
        match node.op.as_str() {
            "MatMul" => {
                let (&k, lead) = a_shape.split_last()?;
                if lead.is_empty() {
                    return None;
                }
                let a = if lead.len() == 1 { self.factor(graph, a) } else { (a, false) };
                let sizes = (lead.iter().product(), b1, k);
                let b = self.factor(graph, b);
                (k == b0).then_some(Product { a, b, sizes, alpha: 1.0, row: None })
            }
            "Gemm" => {
                let number = |name: &str| node.float(name).unwrap_or(1.0);
                let flag = |name: &str| node.int(name).unwrap_or(0) != 0;
                let &[a0, a1] = &a_shape[..] else { return None };
                let (ta, tb) = (flag("transA"), flag("transB"));
                let (m, k) = if ta { (a1, a0) } else { (a0, a1) };
                let n = if tb { b0 } else { b1 };
                // With beta 0 the row is not read, whatever it holds.
                let row = node.input(2).map(|row| (row, number("beta")));
                let row = row.filter(|&(_, beta)| beta != 0.0);
                if let Some((row, _)) = row
                    && shape(graph, row)? != [n]
                {
                    return None;
                }
                let turned = |(v, twice): Factor, once: bool| (v, twice != once);
                let (a, b) = (turned(self.factor(graph, a), ta), turned(self.factor(graph, b), tb));
                Some(Product { a, b, sizes: (m, n, k), alpha: number("alpha"), row })
            }
            _ => None,
        }
    }

    /// The sum that alone reads a product, if what it adds is one row of that width.
    fn added_row(&self, graph: &Graph, product: NodeId, width: usize) -> Option<(NodeId, ValueId)> {
        let y = graph.node(product).output(0)?;
        let [(sum, _)] = self.consumers[y.index()][..] else { return None };
        let node = graph.node(sum);
        if node.op != "Add" || !node.domain.is_empty() || graph.outputs().contains(&y) {
            return None;
        }
        let (first, second) = (node.input(0)?, node.input(1)?);
        let row = if first == y { second } else { first };
        let keeps = shape(graph, node.output(0)?)? == shape(graph, y)?;
        (keeps && row != y && shape(graph, row)? == [width]).then_some((sum, row))
    }
}

/// Makes the node `at` the product, or the last step of it.
fn replace(graph: &mut Graph, at: NodeId, product: Product, products: Products) -> Result<()> {
    let Some(y) = graph.node(at).output(0) else { return Ok(()) };
    let (m, n, k) = product.sizes;
    let mut g = Build::new(graph);
    let (mut a, turned) = product.a;
    if g.rank(a)? != 2 {
        a = g.reshape(a, &[m, k])?;
    }
    let is_matrix = g.rank(y)? == 2;
    let to = if is_matrix {
        y
    } else {
        let name = g.graph_mut().fresh_name("product");
        let to = g.graph_mut().add_value(&name)?;
        g.graph_mut().set_type(to, ValueType::known(DType::F32, &[m, n]));
        to
    };
    let mut inputs = vec![Some(a), Some(product.b.0)];
    let flags = [("transA", turned), ("transB", product.b.1)];
    let mut attributes = flags.map(|(k, v)| (k.to_owned(), Attribute::Int(v.into()))).to_vec();
    attributes.push(("alpha".to_owned(), Attribute::Float(product.alpha)));
    if let Some((row, beta)) = product.row {
        inputs.push(Some(row));
        attributes.push(("beta".to_owned(), Attribute::Float(beta)));
    }
    let node = Node {
        name: String::new(),
        op: products.operator(product.row.is_some()).into(),
        domain: MMOPT_DOMAIN.into(),
        inputs,
        outputs: vec![Some(to)],
        attributes: attributes.into_iter().collect(),
    };
    if is_matrix {
        *graph.node_mut(at) = node;
        return Ok(());
    }
    graph.push_node(node);
    let mut g = Build::new(graph);
    let whole = g.shape(y)?;
    let again = g.reshape(to, &whole)?;
    *graph.node_mut(at) = Node {
        name: String::new(),
        op: "Identity".into(),
        domain: String::new(),
        inputs: vec![Some(again)],
        outputs: vec![Some(y)],
        attributes: [].into(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::TensorData;

    const F32: DType = DType::F32;

    fn ops(graph: &Graph) -> Vec<&str> {
        graph.nodes().iter().map(|n| n.op.as_str()).collect()
    }

    fn finished(graph: Graph) -> Graph {
        with(graph, Products::Bf16)
    }

    fn with(mut graph: Graph, products: Products) -> Graph {
        rewrite_products(&mut graph, products).unwrap();
        graph.sort().unwrap();
        graph.prune();
        graph
    }

    fn flags(graph: &Graph, op: &str) -> (i64, i64) {
        let node = graph.nodes().iter().find(|n| n.op == op).unwrap();
        (node.int("transA").unwrap(), node.int("transB").unwrap())
    }

    /// x `[2, 64, 64]` times w, plus a row, as exporters write a layer.
    #[test]
    fn a_layer_becomes_one_product() {
        let mut g = Graph::new("layer", 17);
        let x = g.add_input("x", ValueType::known(F32, &[2, 64, 64])).unwrap();
        let w = g.add_input("w", ValueType::known(F32, &[48, 64])).unwrap();
        let row = g.add_input("row", ValueType::known(F32, &[48])).unwrap();
        let mut b = Build::new(&mut g);
        let turned = b.transpose_last(w).unwrap();
        let product = b.matmul(x, turned).unwrap();
        let y = b.add(row, product).unwrap();
        g.rename(y, "y").unwrap();
        g.add_output(y);
        let g = finished(g);
        assert_eq!(ops(&g), ["Reshape", "GemmBf16", "Reshape", "Identity"]);
        assert_eq!(flags(&g, "GemmBf16"), (0, 1));
        assert_eq!(g.value_name(g.outputs()[0]), "y");
        assert_eq!(g.value(g.outputs()[0]).ty.static_shape().unwrap(), [2, 64, 48]);
    }

    #[test]
    fn transposes_and_gemms_are_taken_in() {
        let mut g = Graph::new("gradient", 17);
        let x = g.add_input("x", ValueType::known(F32, &[128, 64])).unwrap();
        let dy = g.add_input("dy", ValueType::known(F32, &[128, 48])).unwrap();
        let mut b = Build::new(&mut g);
        let xt = b.transpose_last(x).unwrap();
        let dw = b.matmul(xt, dy).unwrap();
        let dwt = b.gemm((dy, true), (x, false), 1.0).unwrap();
        let half = b.gemm((dy, true), (x, false), 0.5).unwrap();
        for v in [dw, dwt, half] {
            g.add_output(v);
        }
        let g = finished(g);
        assert_eq!(ops(&g), ["MatMulBf16"; 3]);
        assert_eq!(flags(&g, "MatMulBf16"), (1, 0));
        let alphas: Vec<_> = g.nodes().iter().map(|n| n.float("alpha")).collect();
        assert_eq!(alphas, [Some(1.0), Some(1.0), Some(0.5)]);
    }

    /// As exporters write a query's layer: alpha (x wᵀ) + beta row; and a row of another shape.
    #[test]
    fn factors_of_a_gemm_are_kept() {
        let mut g = Graph::new("query", 17);
        let x = g.add_input("x", ValueType::known(F32, &[128, 64])).unwrap();
        let w = g.add_input("w", ValueType::known(F32, &[48, 64])).unwrap();
        for (name, shape, beta) in
            [("row", &[48][..], 0.25), ("column", &[128, 1], 0.25), ("none", &[48], 0.0)]
        {
            let c = g.add_input(name, ValueType::known(F32, shape)).unwrap();
            let y = g.add_value(&format!("{name} y")).unwrap();
            g.set_type(y, ValueType::known(F32, &[128, 48]));
            g.push_node(Node {
                name: String::new(),
                op: "Gemm".into(),
                domain: String::new(),
                inputs: vec![Some(x), Some(w), Some(c)],
                outputs: vec![Some(y)],
                attributes: [
                    ("alpha".to_owned(), Attribute::Float(0.125)),
                    ("beta".to_owned(), Attribute::Float(beta)),
                    ("transB".to_owned(), Attribute::Int(1)),
                ]
                .into(),
            });
            g.add_output(y);
        }
        let g = finished(g);
        assert_eq!(ops(&g), ["GemmBf16", "Gemm", "MatMulBf16"]);
        let product = &g.nodes()[0];
        assert_eq!([product.float("alpha"), product.float("beta")], [Some(0.125), Some(0.25)]);
        assert_eq!(flags(&g, "GemmBf16"), (0, 1));
    }

    /// In f32, those of some size; of columns that are not whole vectors, of greater size.
    #[test]
    fn only_large_products_leave_the_runtime_in_f32() {
        let sizes = [
            (1024, 768, 768, true),
            (1024, 128, 512, true),
            (64, 64, 512, true),
            (64, 64, 256, false),
            (1024, 72, 512, false),
            (1024, 520, 512, true),
            (8, 768, 768, false),
        ];
        for (m, n, k, taken) in sizes {
            let graph = || {
                let mut g = Graph::new("f32", 17);
                let x = g.add_input("x", ValueType::known(F32, &[m, k])).unwrap();
                let w = g.add_input("w", ValueType::known(F32, &[k, n])).unwrap();
                let y = Build::new(&mut g).matmul(x, w).unwrap();
                g.add_output(y);
                g
            };
            let op = if taken { "MatMulF32" } else { "MatMul" };
            assert_eq!(ops(&with(graph(), Products::F32)), [op]);
            assert_eq!(ops(&with(graph(), Products::Runtime)), ["MatMul"]);
        }
    }

    /// Batches of products, small ones, and sums that more than one row is added in, stay.
    #[test]
    fn others_stay() {
        let mut g = Graph::new("others", 17);
        let mut input =
            |name: &str, shape: &[usize]| g.add_input(name, ValueType::known(F32, shape)).unwrap();
        let heads = input("heads", &[4, 64, 64]);
        // One side of 2 with much work; all sides of 32 with little.
        let (tokens, classes) = (input("tokens", &[4096, 64]), input("classes", &[64, 2]));
        let square = input("square", &[32, 32]);
        let (x, w) = (input("x", &[128, 64]), input("w", &[64, 64]));
        let whole = input("whole", &[128, 64]);
        let mut b = Build::new(&mut g);
        let kept = [(heads, heads), (tokens, classes), (square, square)];
        let kept = kept.map(|(x, y)| b.matmul(x, y).unwrap());
        let product = b.matmul(x, w).unwrap();
        let sum = b.add(product, whole).unwrap();
        for v in kept.into_iter().chain([sum]) {
            g.add_output(v);
        }
        let g = finished(g);
        assert_eq!(ops(&g), ["MatMul", "MatMul", "MatMul", "MatMulBf16", "Add"]);
    }

    /// A product that something else reads, or that the graph puts out, is not taken into a sum.
    #[test]
    fn a_product_that_is_read_twice_stays_a_value() {
        for is_output in [false, true] {
            let mut g = Graph::new("twice", 17);
            let x = g.add_input("x", ValueType::known(F32, &[64, 64])).unwrap();
            let row = TensorData::from_slice(&[64], &[1f32; 64]).unwrap();
            let row = g.add_initializer("row", row).unwrap();
            let mut b = Build::new(&mut g);
            let product = b.matmul(x, x).unwrap();
            let sum = b.add(product, row).unwrap();
            let other = if is_output { product } else { b.neg(product).unwrap() };
            g.add_output(sum);
            g.add_output(other);
            let g = finished(g);
            assert_eq!(ops(&g)[..2], ["MatMulBf16", "Add"]);
        }
    }
}

//! A BERT-base for sequence classification with random weights, written as the tracing exporter
//! of PyTorch writes it at opset 17: linear weights transposed under invented names, shape
//! arithmetic around every split into heads, activations and masks in elementary operators, free
//! batch and sequence dimensions.

use mmopt::error::{Error, Result};
use mmopt::onnx::{Attribute, Dim, Graph, TensorData, ValueId, ValueType};
use mmopt::tensor::DType;

const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;
const LAYERS: usize = 12;
const WIDTH: usize = 768;
const HEADS: usize = 12;
const INNER: usize = 3072;
const LABELS: usize = 2;

/// The graph, with 109.5 million parameters.
pub fn bert_base() -> Result<Graph> {
    let mut e = Export { g: Graph::new("main_graph", 17), state: 1, n_weights: 200 };
    let ids = e.input("input_ids")?;
    let mask = e.input("attention_mask")?;
    let types = e.input("token_type_ids")?;
    let mut x = e.embeddings(ids, types)?;
    let mask = e.mask(mask)?;
    for layer in 0..LAYERS {
        x = e.layer(&format!("bert.encoder.layer.{layer}"), x, mask)?;
    }
    let zero = e.constant(TensorData::from_slice(&[], &[0i64])?);
    let first = e.g.op("Gather", &[x, zero], [("axis", Attribute::Int(1))]);
    let pooled = e.gemm("bert.pooler.dense", first, WIDTH)?;
    let pooled = e.g.op("Tanh", &[pooled], []);
    let logits = e.gemm("classifier", pooled, LABELS)?;
    e.g.rename(logits, "logits")?;
    e.g.set_type(logits, ValueType { dtype: Some(DType::F32), shape: Some(free("batch", LABELS)) });
    e.g.add_output(logits);
    Ok(e.g)
}

fn free(symbol: &str, width: usize) -> Vec<Dim> {
    vec![Dim::Symbol(symbol.into()), Dim::Known(width)]
}

struct Export {
    g: Graph,
    state: u64,
    n_weights: usize,
}

impl Export {
    fn input(&mut self, name: &str) -> Result<ValueId> {
        let shape = ["batch", "sequence"].map(|s| Dim::Symbol(s.into())).to_vec();
        self.g.add_input(name, ValueType { dtype: Some(DType::I64), shape: Some(shape) })
    }

    /// Random weights between -0.04 and 0.04 (xorshift).
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<ValueId> {
        let mut next = || {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            ((self.state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.08
        };
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        self.g.add_initializer(name, TensorData::from_slice(shape, &data)?)
    }

    fn constant(&mut self, data: TensorData) -> ValueId {
        self.g.op("Constant", &[], [("value", Attribute::Tensor(data))])
    }

    fn number(&mut self, x: f32) -> Result<ValueId> {
        Ok(self.constant(TensorData::from_slice(&[], &[x])?))
    }

    fn norm(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        let gain = self.weight(&format!("{name}.weight"), &[WIDTH])?;
        let shift = self.weight(&format!("{name}.bias"), &[WIDTH])?;
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(1e-12))];
        Ok(self.g.op("LayerNormalization", &[x, gain, shift], attributes))
    }

    /// On three dimensions: the weight is stored transposed and loses its name.
    fn linear(&mut self, name: &str, x: ValueId, (from, to): (usize, usize)) -> Result<ValueId> {
        let invented = format!("onnx::MatMul_{}", self.n_weights);
        self.n_weights += 1;
        let weight = self.weight(&invented, &[from, to])?;
        let bias = self.weight(&format!("{name}.bias"), &[to])?;
        let y = self.g.op("MatMul", &[x, weight], []);
        Ok(self.g.op("Add", &[bias, y], []))
    }

    /// On two dimensions: the weight stays as it is.
    fn gemm(&mut self, name: &str, x: ValueId, to: usize) -> Result<ValueId> {
        let weight = self.weight(&format!("{name}.weight"), &[to, WIDTH])?;
        let bias = self.weight(&format!("{name}.bias"), &[to])?;
        Ok(self.g.op("Gemm", &[x, weight, bias], [("transB", Attribute::Int(1))]))
    }

    /// A dimension of x, of shape `[1]`.
    fn size(&mut self, x: ValueId, axis: i64) -> Result<ValueId> {
        let shape = self.g.op("Shape", &[x], []);
        let axis = self.constant(TensorData::from_slice(&[], &[axis])?);
        let size = self.g.op("Gather", &[shape, axis], [("axis", Attribute::Int(0))]);
        let zero = self.constant(TensorData::ints(&[0]));
        Ok(self.g.op("Unsqueeze", &[size, zero], []))
    }

    /// x reshaped to its own first two dimensions and `rest`.
    fn reshape(&mut self, x: ValueId, rest: &[i64]) -> Result<ValueId> {
        let mut parts = vec![self.size(x, 0)?, self.size(x, 1)?];
        parts.extend(rest.iter().map(|&n| self.constant(TensorData::ints(&[n]))));
        let shape = self.g.op("Concat", &parts, [("axis", Attribute::Int(0))]);
        Ok(self.g.op("Reshape", &[x, shape], [("allowzero", Attribute::Int(0))]))
    }

    fn transpose(&mut self, x: ValueId, perm: &[i64]) -> ValueId {
        self.g.op("Transpose", &[x], [("perm", Attribute::Ints(perm.to_vec()))])
    }

    fn embeddings(&mut self, ids: ValueId, types: ValueId) -> Result<ValueId> {
        let name = |part: &str| format!("bert.embeddings.{part}.weight");
        let words = self.weight(&name("word_embeddings"), &[VOCABULARY, WIDTH])?;
        let positions = self.weight(&name("position_embeddings"), &[POSITIONS, WIDTH])?;
        let kinds = self.weight(&name("token_type_embeddings"), &[2, WIDTH])?;
        let all = TensorData::from_slice(&[1, POSITIONS], &Vec::from_iter(0..POSITIONS as i64))?;
        let [all, zero, one, step] = [
            self.constant(all),
            self.constant(TensorData::ints(&[0])),
            self.constant(TensorData::ints(&[1])),
            self.constant(TensorData::ints(&[1])),
        ];
        let end = self.size(ids, 1)?;
        let at = self.g.op("Slice", &[all, zero, end, one, step], []);
        let word = self.g.op("Gather", &[words, ids], []);
        let kind = self.g.op("Gather", &[kinds, types], []);
        let sum = self.g.op("Add", &[word, kind], []);
        let position = self.g.op("Gather", &[positions, at], []);
        let sum = self.g.op("Add", &[sum, position], []);
        self.norm("bert.embeddings.LayerNorm", sum)
    }

    /// 0 where attention may look, the smallest number elsewhere.
    fn mask(&mut self, mask: ValueId) -> Result<ValueId> {
        let [one, two] = [1, 2].map(|a| self.constant(TensorData::ints(&[a])));
        let mask = self.g.op("Unsqueeze", &[mask, one], []);
        let mask = self.g.op("Unsqueeze", &[mask, two], []);
        let mask = self.g.op("Cast", &[mask], [("to", Attribute::Int(1))]);
        let (unit, lowest) = (self.number(1.0)?, self.number(f32::MIN)?);
        let hidden = self.g.op("Sub", &[unit, mask], []);
        Ok(self.g.op("Mul", &[hidden, lowest], []))
    }

    fn layer(&mut self, name: &str, x: ValueId, mask: ValueId) -> Result<ValueId> {
        let mixed = self.attention(&format!("{name}.attention.self"), x, mask)?;
        let dense = format!("{name}.attention.output.dense");
        let mixed = self.linear(&dense, mixed, (WIDTH, WIDTH))?;
        let sum = self.g.op("Add", &[mixed, x], []);
        let x = self.norm(&format!("{name}.attention.output.LayerNorm"), sum)?;
        let inner = self.linear(&format!("{name}.intermediate.dense"), x, (WIDTH, INNER))?;
        let inner = self.gelu(inner)?;
        let outer = self.linear(&format!("{name}.output.dense"), inner, (INNER, WIDTH))?;
        let sum = self.g.op("Add", &[outer, x], []);
        self.norm(&format!("{name}.output.LayerNorm"), sum)
    }

    fn attention(&mut self, name: &str, x: ValueId, mask: ValueId) -> Result<ValueId> {
        let width = (WIDTH / HEADS) as i64;
        let mut heads = |part: &str, perm: &[i64]| {
            let y = self.linear(&format!("{name}.{part}"), x, (WIDTH, WIDTH))?;
            let y = self.reshape(y, &[HEADS as i64, width])?;
            Ok::<_, Error>(self.transpose(y, perm))
        };
        let query = heads("query", &[0, 2, 1, 3])?;
        let key = heads("key", &[0, 2, 3, 1])?;
        let value = heads("value", &[0, 2, 1, 3])?;
        let scores = self.g.op("MatMul", &[query, key], []);
        let root = self.number((width as f32).sqrt())?;
        let scores = self.g.op("Div", &[scores, root], []);
        let scores = self.g.op("Add", &[scores, mask], []);
        let weights = self.g.op("Softmax", &[scores], [("axis", Attribute::Int(-1))]);
        let mixed = self.g.op("MatMul", &[weights, value], []);
        let mixed = self.transpose(mixed, &[0, 2, 1, 3]);
        self.reshape(mixed, &[WIDTH as i64])
    }

    /// x (1 + erf(x / sqrt 2)) / 2
    fn gelu(&mut self, x: ValueId) -> Result<ValueId> {
        let root = self.number(std::f32::consts::SQRT_2)?;
        let y = self.g.op("Div", &[x, root], []);
        let y = self.g.op("Erf", &[y], []);
        let one = self.number(1.0)?;
        let y = self.g.op("Add", &[y, one], []);
        let y = self.g.op("Mul", &[x, y], []);
        let half = self.number(0.5)?;
        Ok(self.g.op("Mul", &[y, half], []))
    }
}

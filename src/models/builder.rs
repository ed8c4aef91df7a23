//! The builder of forward graphs: parameters declared by name, constants shared, and the layers
//! that the architectures have in common. Hidden states are 2-D, [batch · sequence, width],
//! so that every product is one plain Gemm.

use std::collections::HashMap;

use super::config::{Activation, Config};
use super::init::{Init, derived_seed};
use crate::error::{Error, Result};
use crate::onnx::{Attribute, Dim, Graph, TensorData, ValueId, ValueType};
use crate::tensor::DType;

/// Operator set of the graphs.
const OPSET: i64 = 17;

/// A parameter that the graph reads; its value comes later.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub name: String,
    pub value: ValueId,
    pub shape: Vec<usize>,
    pub init: Init,
    pub padding_row: Option<usize>,
    /// Part of the task's head, which a checkpoint may lack.
    pub head: bool,
}

/// A forward graph under construction.
pub(super) struct ModelBuilder<'a> {
    pub graph: Graph,
    pub config: &'a Config,
    pub declared: Vec<Declared>,
    /// The token ids, [batch, sequence], int64.
    pub ids: ValueId,
    /// The attention mask, [batch, sequence], int64, 1 where a token is.
    pub mask: ValueId,
    /// `[batch, sequence]` as an int64 tensor of two elements.
    pub dims: ValueId,
    /// Whether parameters declared from here on belong to the head.
    pub in_head: bool,
    scope: String,
    seed: u64,
    n_dropouts: u64,
    by_name: HashMap<String, usize>,
    constants: HashMap<(DType, Vec<u64>, bool), ValueId>,
}

impl<'a> ModelBuilder<'a> {
    /// A graph with the inputs `input_ids` and `attention_mask`.
    pub fn new(config: &'a Config, seed: u64) -> Result<Self> {
        let mut graph = Graph::new(&config.model_type, OPSET);
        let ids = graph.add_input("input_ids", tokens())?;
        let mask = graph.add_input("attention_mask", tokens())?;
        let mut net = Self {
            graph,
            config,
            declared: Vec::new(),
            ids,
            mask,
            dims: ids,
            in_head: false,
            scope: String::new(),
            seed,
            n_dropouts: 0,
            by_name: HashMap::new(),
            constants: HashMap::new(),
        };
        net.dims = net.op("Shape", &[ids], []);
        Ok(net)
    }

    /// One more input of [batch, sequence] int64.
    pub fn add_input(&mut self, name: &str) -> Result<ValueId> {
        self.graph.add_input(name, tokens())
    }

    /// Nodes from here on are named after this part of the model.
    pub fn enter(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Appends a node with one output.
    pub fn op<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: [(&str, Attribute); N],
    ) -> ValueId {
        let output = self.graph.op(op, inputs, attributes);
        self.name_last(op);
        output
    }

    /// Appends a node with `n` outputs.
    pub fn op_n<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        n: usize,
        attributes: [(&str, Attribute); N],
    ) -> Vec<ValueId> {
        let inputs: Vec<_> = inputs.iter().map(|&v| Some(v)).collect();
        let outputs = self.graph.op_n(op, &inputs, n, attributes);
        self.name_last(op);
        outputs
    }

    fn name_last(&mut self, op: &str) {
        if let Some(id) = self.graph.node_ids().next_back() {
            self.graph.node_mut(id).name = format!("{}/{op}_{}", self.scope, id.index());
        }
    }

    /// An f32 scalar.
    pub fn float(&mut self, value: f64) -> ValueId {
        let bits = vec![u64::from((value as f32).to_bits())];
        let data = TensorData::scalar(DType::F32, value);
        self.constant((DType::F32, bits, true), data)
    }

    /// A 1-D int64 constant.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        let bits = values.iter().map(|&v| v as u64).collect();
        self.constant((DType::I64, bits, false), Ok(TensorData::ints(values)))
    }

    /// An int64 scalar.
    pub fn int(&mut self, value: i64) -> ValueId {
        let data = TensorData::scalar(DType::I64, value as f64);
        self.constant((DType::I64, vec![value as u64], true), data)
    }

    /// One `Constant` node per distinct value. Constants are no initializers: those are the
    /// parameters.
    fn constant(&mut self, key: (DType, Vec<u64>, bool), data: Result<TensorData>) -> ValueId {
        if let Some(&id) = self.constants.get(&key) {
            return id;
        }
        let attribute = match data {
            Ok(data) => Attribute::Tensor(data),
            // The dtypes used here all have scalars.
            Err(_) => Attribute::Float(f32::NAN),
        };
        let name = match attribute {
            Attribute::Tensor(_) => "value",
            _ => "value_float",
        };
        let id = self.op("Constant", &[], [(name, attribute)]);
        self.constants.insert(key, id);
        id
    }

    /// The f32 parameter of that state-dict name; declared at its first use.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ValueId> {
        self.padded_parameter(name, shape, init, None)
    }

    /// A parameter with a row that is zero and has no gradient in the published model.
    pub fn padded_parameter(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
        padding_row: Option<usize>,
    ) -> Result<ValueId> {
        if let Some(&index) = self.by_name.get(name) {
            let known = &self.declared[index];
            if known.shape != shape {
                return Err(Error::internal(format!("'{name}' is used with two shapes")));
            }
            return Ok(known.value);
        }
        if let Some(row) = padding_row.filter(|&row| row >= shape[0]) {
            return Err(Error::data(format!("'{name}' has no row {row} for padding")));
        }
        let value = self.graph.add_value(name)?;
        self.graph.set_type(value, ValueType::known(DType::F32, shape));
        self.by_name.insert(name.to_owned(), self.declared.len());
        self.declared.push(Declared {
            name: name.to_owned(),
            value,
            shape: shape.to_vec(),
            init,
            padding_row,
            head: self.in_head,
        });
        Ok(value)
    }

    /// The model's usual initialisation of matrices.
    pub fn normal(&self) -> Init {
        Init::Normal(self.config.initializer_range)
    }

    /// `y = x Wᵀ + b`, W in [out, in] as the state dict holds linear layers.
    pub fn linear(&mut self, x: ValueId, name: &str, n: (usize, usize)) -> Result<ValueId> {
        self.scaled_linear(x, name, n, 1.0)
    }

    /// `y = s (x Wᵀ + b)`; the factor costs nothing inside the product.
    pub fn scaled_linear(
        &mut self,
        x: ValueId,
        name: &str,
        (n_in, n_out): (usize, usize),
        factor: f64,
    ) -> Result<ValueId> {
        let w = self.parameter(&format!("{name}.weight"), &[n_out, n_in], self.normal())?;
        let b = self.parameter(&format!("{name}.bias"), &[n_out], Init::Zeros)?;
        self.enter(name);
        if factor == 1.0 {
            return Ok(self.op("Gemm", &[x, w, b], [("transB", Attribute::Int(1))]));
        }
        let factor = Attribute::Float(factor as f32);
        let scale = [("alpha", factor.clone()), ("beta", factor), ("transB", Attribute::Int(1))];
        Ok(self.op("Gemm", &[x, w, b], scale))
    }

    /// `y = x Wᵀ` with a matrix that is there already.
    pub fn project(&mut self, x: ValueId, w: ValueId) -> ValueId {
        self.op("Gemm", &[x, w], [("transB", Attribute::Int(1))])
    }

    /// Layer normalisation over the width (Ba et al. 2016).
    pub fn layer_norm(&mut self, x: ValueId, name: &str) -> Result<ValueId> {
        self.layer_norm_of(x, name, self.config.hidden)
    }

    /// Layer normalisation over a last axis of `width`.
    pub fn layer_norm_of(&mut self, x: ValueId, name: &str, width: usize) -> Result<ValueId> {
        let width = [width];
        let w = self.parameter(&format!("{name}.weight"), &width, Init::Ones)?;
        let b = self.parameter(&format!("{name}.bias"), &width, Init::Zeros)?;
        self.enter(name);
        let epsilon = Attribute::Float(self.config.norm_epsilon as f32);
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", epsilon)];
        Ok(self.op("LayerNormalization", &[x, w, b], attributes))
    }

    /// Dropout in training mode; no node at rate 0.
    pub fn dropout(&mut self, x: ValueId, rate: f64) -> ValueId {
        if rate == 0.0 {
            return x;
        }
        let ratio = self.float(rate);
        let data = TensorData::scalar(DType::Bool, 1.0);
        let training = self.constant((DType::Bool, vec![1], true), data);
        let seed = Attribute::Int(derived_seed(self.seed, self.n_dropouts));
        self.n_dropouts += 1;
        self.op("Dropout", &[x, ratio, training], [("seed", seed)])
    }

    /// The configured nonlinearity, in the forms that ONNX Runtime fuses.
    pub fn activation(&mut self, x: ValueId) -> ValueId {
        match self.config.activation {
            Activation::Relu => self.op("Relu", &[x], []),
            Activation::Tanh => self.op("Tanh", &[x], []),
            Activation::Silu => {
                let gate = self.op("Sigmoid", &[x], []);
                self.op("Mul", &[x, gate], [])
            }
            Activation::Gelu => self.gelu(x),
            Activation::GeluTanh => self.gelu_tanh(x),
        }
    }

    /// The exact form, whatever the configuration says.
    pub fn gelu(&mut self, x: ValueId) -> ValueId {
        let root = self.float(std::f64::consts::SQRT_2);
        let (one, half) = (self.float(1.0), self.float(0.5));
        let y = self.op("Div", &[x, root], []);
        let y = self.op("Erf", &[y], []);
        let y = self.op("Add", &[y, one], []);
        let y = self.op("Mul", &[x, y], []);
        self.op("Mul", &[y, half], [])
    }

    fn gelu_tanh(&mut self, x: ValueId) -> ValueId {
        let (three, cubic) = (self.float(3.0), self.float(0.044715));
        let root = self.float((2.0 / std::f64::consts::PI).sqrt());
        let (one, half) = (self.float(1.0), self.float(0.5));
        let y = self.op("Pow", &[x, three], []);
        let y = self.op("Mul", &[y, cubic], []);
        let y = self.op("Add", &[x, y], []);
        let y = self.op("Mul", &[y, root], []);
        let y = self.op("Tanh", &[y], []);
        let y = self.op("Add", &[y, one], []);
        let x = self.op("Mul", &[x, half], []);
        self.op("Mul", &[x, y], [])
    }

    /// [batch · sequence, n] → [batch, sequence, n].
    pub fn unflatten(&mut self, x: ValueId, n: usize) -> ValueId {
        let width = self.ints(&[n as i64]);
        let shape = self.op("Concat", &[self.dims, width], [("axis", Attribute::Int(0))]);
        self.op("Reshape", &[x, shape], [])
    }

    /// [.., n] → [rows, n].
    pub fn flatten(&mut self, x: ValueId, n: usize) -> ValueId {
        let shape = self.ints(&[-1, n as i64]);
        self.op("Reshape", &[x, shape], [])
    }

    /// The first `sequence` rows of a table: positions 0, 1, ….
    pub fn leading_rows(&mut self, table: ValueId) -> ValueId {
        let one = self.ints(&[1]);
        let n = self.op("Gather", &[self.dims, one], [("axis", Attribute::Int(0))]);
        let zero = self.ints(&[0]);
        self.op("Slice", &[table, zero, n, zero], [])
    }

    /// The first token of each sequence: [batch · sequence, hidden] → [batch, hidden].
    pub fn first_token(&mut self, x: ValueId) -> ValueId {
        let x = self.unflatten(x, self.config.hidden);
        let (zero, one) = (self.ints(&[0]), self.ints(&[1]));
        let x = self.op("Slice", &[x, zero, one, one], []);
        self.flatten(x, self.config.hidden)
    }

    /// Makes `value` a graph output of that name and shape.
    pub fn output(&mut self, value: ValueId, name: &str, dims: Vec<Dim>) -> Result<()> {
        self.graph.rename(value, name)?;
        self.graph.set_type(value, ValueType { dtype: Some(DType::F32), shape: Some(dims) });
        self.graph.add_output(value);
        Ok(())
    }
}

/// The type of the token inputs.
fn tokens() -> ValueType {
    ValueType { dtype: Some(DType::I64), shape: Some(vec![batch(), sequence()]) }
}

/// The free dimension of examples.
pub(super) fn batch() -> Dim {
    Dim::Symbol("batch".into())
}

/// The free dimension of tokens.
pub(super) fn sequence() -> Dim {
    Dim::Symbol("sequence".into())
}

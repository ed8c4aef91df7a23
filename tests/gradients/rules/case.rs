//! One operator application, and the check of its gradients.

use std::collections::BTreeMap;
use std::fmt;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::{Error, Result};
use mmopt::onnx::proto::GraphProto;
use mmopt::onnx::{Attribute, Graph, Node, TensorData, ValueId};
use mmopt::runtime::{Device, Session, SessionOptions};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{Products, TrainingGraph, evaluation_graph, training_graph};

/// The operators that reduce over axes.
pub const REDUCTIONS: [&str; 10] = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

/// The device that `MMOPT_TEST_DEVICE` names: gradients are computed there, what they are
/// compared with on the CPU.
pub fn device() -> Device {
    let device = std::env::var("MMOPT_TEST_DEVICE").map(|d| d.parse().expect("MMOPT_TEST_DEVICE"));
    device.unwrap_or_default()
}

/// Defaults, on that device.
pub fn session_options() -> SessionOptions {
    SessionOptions { device: device(), ..SessionOptions::default() }
}

/// A small generator, so that a case is the same in every run.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// An input of the operator.
#[derive(Clone)]
pub enum Input {
    /// A float tensor that is differentiated; drawn from the case's range.
    Param(Vec<usize>),
    /// The same tensor as an earlier input.
    Again(usize),
    /// A float tensor of given values that is differentiated.
    Values(Vec<usize>, Vec<f64>),
    /// A constant float tensor of the case's element type.
    Fixed(Vec<usize>, Vec<f64>),
    /// Any other constant.
    Constant(TensorData),
    /// No input of the node, but a tensor of that name which its body reads; differentiated.
    Captured(&'static str, Vec<usize>),
    /// The same of constant integers, which are a scalar if there is one.
    Named(&'static str, Vec<i64>),
    /// Left out.
    None,
}

/// What a check that succeeded saw.
#[derive(Debug)]
pub struct Checked {
    /// The element type that it ran in.
    pub dtype: DType,
    /// The loss.
    pub forward: f64,
    /// The gradients that the rule gave.
    pub gradients: Vec<Vec<f64>>,
}

/// An operator with inputs and attributes.
#[derive(Clone)]
pub struct Case {
    pub op: &'static str,
    pub domain: &'static str,
    pub opset: i64,
    pub inputs: Vec<Input>,
    attributes: Vec<(&'static str, Attribute)>,
    n_outputs: usize,
    /// Outputs that enter the loss.
    used: Vec<usize>,
    /// Absolute values of drawn inputs, and whether signs are drawn too.
    range: (f64, f64, bool),
    /// Reduction axes: an attribute or an input, as the opset says.
    axes: Option<Vec<i64>>,
    tolerance: f64,
    /// Whether the operator computes in f32 whatever its inputs are.
    narrow: bool,
    /// Whether the rewrite's result is compared with the operator's own.
    rewritten: bool,
    /// Whether nothing but that is compared.
    result_only: bool,
    /// The step of differences in f64.
    step: f64,
    /// What inputs are drawn by.
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self
            .inputs
            .iter()
            .map(|i| match i {
                Input::Param(s) | Input::Values(s, _) => format!("{s:?}"),
                Input::Captured(name, s) => format!("{name} {s:?}"),
                Input::Named(name, v) => format!("{name} {v:?}"),
                Input::Again(i) => format!("input {i}"),
                Input::Fixed(_, v) => format!("{v:?}"),
                Input::Constant(d) => format!("{:?}", d.to_f64s().unwrap_or_default()),
                Input::None => "-".into(),
            })
            .collect();
        let body = |a: &&(&str, Attribute)| !matches!(a.1, Attribute::Graph(_));
        let attributes: Vec<_> = self.attributes.iter().filter(body).collect();
        write!(f, "{} (opset {}) of {shapes:?} {attributes:?}", self.op, self.opset)?;
        self.axes.as_ref().map_or(Ok(()), |a| write!(f, " axes {a:?}"))
    }
}

/// The usual step of differences in f64.
const COARSE: f64 = 1e-3;

/// A case at opset 17 with inputs of absolute value 0.4 to 1.6 and either sign.
pub fn case(op: &'static str) -> Case {
    Case {
        op,
        domain: "",
        opset: 17,
        inputs: Vec::new(),
        attributes: Vec::new(),
        n_outputs: 1,
        used: vec![0],
        range: (0.4, 1.6, true),
        axes: None,
        tolerance: 1.0,
        narrow: false,
        rewritten: false,
        result_only: false,
        step: COARSE,
        seed: 3,
    }
}

impl Case {
    pub fn x(mut self, shape: &[usize]) -> Self {
        self.inputs.push(Input::Param(shape.to_vec()));
        self
    }

    pub fn again(mut self, i: usize) -> Self {
        self.inputs.push(Input::Again(i));
        self
    }

    pub fn values(mut self, shape: &[usize], values: &[f64]) -> Self {
        self.inputs.push(Input::Values(shape.to_vec(), values.to_vec()));
        self
    }

    pub fn fixed(mut self, shape: &[usize], values: &[f64]) -> Self {
        self.inputs.push(Input::Fixed(shape.to_vec(), values.to_vec()));
        self
    }

    pub fn ints(self, values: &[i64]) -> Self {
        self.ints_of(&[values.len()], values)
    }

    pub fn ints_of(mut self, shape: &[usize], values: &[i64]) -> Self {
        let data = TensorData::ints(values).reshaped(shape).unwrap();
        self.inputs.push(Input::Constant(data));
        self
    }

    pub fn captured(mut self, name: &'static str, shape: &[usize]) -> Self {
        self.inputs.push(Input::Captured(name, shape.to_vec()));
        self
    }

    pub fn named(mut self, name: &'static str, values: &[i64]) -> Self {
        self.inputs.push(Input::Named(name, values.to_vec()));
        self
    }

    /// A body, as the attribute of that name.
    pub fn body(mut self, name: &'static str, body: GraphProto) -> Self {
        self.attributes.push((name, Attribute::Graph(Box::new(body))));
        self
    }

    pub fn bools(mut self, shape: &[usize], values: &[u8]) -> Self {
        let data = TensorData::new(DType::Bool, shape, values.to_vec().into()).unwrap();
        self.inputs.push(Input::Constant(data));
        self
    }

    pub fn ints32_of(mut self, shape: &[usize], values: &[i32]) -> Self {
        self.inputs.push(Input::Constant(TensorData::from_slice(shape, values).unwrap()));
        self
    }

    pub fn singles(mut self, values: &[f32]) -> Self {
        let data = TensorData::from_slice(&[values.len()], values).unwrap();
        self.inputs.push(Input::Constant(data));
        self
    }

    pub fn none(mut self) -> Self {
        self.inputs.push(Input::None);
        self
    }

    pub fn int(mut self, name: &'static str, value: i64) -> Self {
        self.attributes.push((name, Attribute::Int(value)));
        self
    }

    pub fn float(mut self, name: &'static str, value: f32) -> Self {
        self.attributes.push((name, Attribute::Float(value)));
        self
    }

    pub fn list(mut self, name: &'static str, value: &[i64]) -> Self {
        self.attributes.push((name, Attribute::Ints(value.to_vec())));
        self
    }

    pub fn floats(mut self, name: &'static str, value: &[f32]) -> Self {
        self.attributes.push((name, Attribute::Floats(value.to_vec())));
        self
    }

    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.attributes.push((name, Attribute::String(value.into())));
        self
    }

    pub fn texts(mut self, name: &'static str, value: &[&str]) -> Self {
        let texts = value.iter().map(|t| (*t).to_owned()).collect();
        self.attributes.push((name, Attribute::Strings(texts)));
        self
    }

    pub fn axes(mut self, axes: &[i64]) -> Self {
        self.axes = Some(axes.to_vec());
        self
    }

    /// Draws inputs with absolute values in `low..high`, positive ones only.
    pub fn positive(mut self, low: f64, high: f64) -> Self {
        self.range = (low, high, false);
        self
    }

    /// Draws inputs with absolute values in `low..high` and either sign.
    pub fn either(mut self, low: f64, high: f64) -> Self {
        self.range = (low, high, true);
        self
    }

    pub fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    pub fn domain(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    pub fn outputs(mut self, n: usize, used: &[usize]) -> Self {
        (self.n_outputs, self.used) = (n, used.to_vec());
        self
    }

    /// Allows this many times the usual error.
    pub fn loose(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Also compares the result with that of the runtime's own kernel.
    pub fn rewritten(mut self) -> Self {
        self.rewritten = true;
        self
    }

    /// Compares the result with that of the runtime's own kernel, and not the gradient.
    pub fn result_only(mut self) -> Self {
        (self.rewritten, self.result_only) = (true, true);
        self
    }

    /// Takes small differences in f64, which rarely meet a kink.
    pub fn fine(mut self) -> Self {
        self.step = 1e-5;
        self
    }

    /// Draws other inputs.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Shapes of the float inputs, those given again included.
    pub fn float_shapes(&self) -> Vec<Vec<usize>> {
        let shape = |i: &Input| match i {
            Input::Param(s) | Input::Values(s, _) | Input::Fixed(s, _) => Some(s.clone()),
            _ => None,
        };
        let of = |i: &Input| match i {
            Input::Again(i) => shape(&self.inputs[*i]),
            other => shape(other),
        };
        self.inputs.iter().filter_map(of).collect()
    }

    /// Number of inputs that are differentiated.
    pub fn n_params(&self) -> usize {
        let counts =
            |i: &&Input| matches!(i, Input::Param(_) | Input::Again(_) | Input::Values(..));
        self.inputs.iter().filter(counts).count()
    }

    /// Whether an input is given again.
    pub fn repeats(&self) -> bool {
        self.inputs.iter().any(|i| matches!(i, Input::Again(_)))
    }

    /// Whether an axis is counted from the end; `slot` is the input that holds axes, if any.
    pub fn counts_from_end(&self, slot: Option<usize>) -> bool {
        let named = self.attributes.iter().any(|(name, a)| match a {
            Attribute::Int(a) => *name == "axis" && *a < 0,
            Attribute::Ints(a) => *name == "axes" && a.iter().any(|&a| a < 0),
            _ => false,
        });
        let given = slot.and_then(|i| self.inputs.get(i)).is_some_and(|i| match i {
            Input::Constant(d) => d.to_i64s().unwrap().iter().any(|&a| a < 0),
            _ => false,
        });
        named || given || self.axes.iter().flatten().any(|&a| a < 0)
    }

    /// Whether an input that the operator works on has no elements.
    pub fn is_empty(&self) -> bool {
        let none = |i: &Input| matches!(i, Input::Constant(d) if d.is_empty());
        self.float_shapes().iter().any(|s| s.contains(&0)) || self.inputs.iter().any(none)
    }

    /// Checks in f32 only.
    pub fn narrow(mut self) -> Self {
        self.narrow = true;
        self
    }

    /// Checks in f64, or in f32 where the runtime lacks the f64 kernel.
    pub fn check(&self) -> Result<Checked> {
        if self.narrow {
            return self.check_in(DType::F32);
        }
        match self.check_in(DType::F64) {
            // Devices lack more of f64, and say so in as many ways as they have kernels.
            Err(e) if lacks_kernel(&e) || device() != Device::Cpu => self.check_in(DType::F32),
            other => other,
        }
    }

    fn check_in(&self, dtype: DType) -> Result<Checked> {
        let (graph, params) = self.graph(dtype)?;
        let spec = LossSpec::new(LossKind::Output("loss".into()));
        let training = training_graph(&graph, &params, &spec, &BTreeMap::new())?;
        let mut session = Session::from_bytes(&training.bytes, &SessionOptions::default())?;
        let values: Vec<Vec<f64>> = params
            .iter()
            .map(|&p| graph.initializer(p).map(|d| d.to_f64s()).transpose())
            .map(|v| Ok(v?.unwrap_or_default()))
            .collect::<Result<_>>()?;
        let shapes: Vec<Vec<usize>> = params
            .iter()
            .map(|&p| graph.initializer(p).map(|d| d.shape().to_vec()).unwrap_or_default())
            .collect();
        let mut random = Random::new(7);
        let direction: Vec<Vec<f64>> =
            values.iter().map(|v| v.iter().map(|_| random.unit() * 2.0 - 1.0).collect()).collect();
        let at = |session: &mut Session, step: f64, outputs: &[&str]| -> Result<Vec<Vec<f64>>> {
            let moved = values
                .iter()
                .zip(&direction)
                .map(|(v, d)| v.iter().zip(d).map(|(v, d)| v + step * d).collect::<Vec<f64>>());
            let moved = tensors(dtype, &moved.collect::<Vec<_>>(), &shapes)?;
            let data = Tensor::zeros(dtype, &[1])?;
            let mut feeds = vec![("one", &data)];
            feeds.extend(training.params.iter().map(String::as_str).zip(&moved));
            let results = session.run(&feeds, outputs)?;
            results.iter().map(|t| TensorData::from_tensor(t)?.to_f64s()).collect()
        };
        if self.rewritten {
            let own = self.forward(&graph, &params, &values, &shapes, dtype)?;
            let bound = if dtype == DType::F64 { 1e-9 } else { 1e-5 } * self.tolerance;
            let ours = at(&mut session, 0.0, &[training.loss.as_str()])?[0][0];
            if (own - ours).abs() > bound * own.abs().max(1.0) {
                let text = format!("the runtime gives {own}, the rewrite {ours} ({dtype})");
                return Err(Error::internal(text));
            }
            if self.result_only {
                return Ok(Checked { dtype, forward: ours, gradients: Vec::new() });
            }
        }
        let names: Vec<&str> = training.grads.iter().flatten().map(String::as_str).collect();
        let device = device();
        let gradients = if device == Device::Cpu {
            at(&mut session, 0.0, &names)?
        } else {
            let options = SessionOptions { device, ..SessionOptions::default() };
            at(&mut Session::from_bytes(&training.bytes, &options)?, 0.0, &names)?
        };
        let analytic = along(&training, &direction, &shapes, &gradients)?;
        let mut loss = |by: f64| at(&mut session, by, &[training.loss.as_str()]).map(|r| r[0][0]);
        let forward = loss(0.0)?;
        let bound = match (dtype, device) {
            (DType::F64, Device::Cpu) => 1e-7,
            // Some kernels of devices compute in f32, whatever the type.
            (DType::F64, _) => 1e-4,
            _ => 1e-3,
        } * self.tolerance;
        let mut tried = Vec::new();
        for h in self.steps(dtype) {
            let (near, far) = (loss(h)? - loss(-h)?, loss(2.0 * h)? - loss(-2.0 * h)?);
            let numeric = (8.0 * near - far) / (12.0 * h);
            let scale = analytic.abs().max(numeric.abs()).max(1.0);
            if (analytic - numeric).abs() <= bound * scale {
                return Ok(Checked { dtype, forward, gradients });
            }
            tried.push(numeric);
        }
        Err(Error::internal(format!("rule gives {analytic}, differences {tried:?} ({dtype})")))
    }

    /// Steps of differences, until one agrees. In f32, large ones meet kinks and small ones rounding.
    fn steps(&self, dtype: DType) -> Vec<f64> {
        match dtype {
            DType::F64 => vec![self.step],
            _ if self.step < COARSE => vec![4e-2, 1e-2, 2.5e-3],
            _ => vec![4e-2],
        }
    }

    /// The loss as the runtime computes it from the operator itself.
    fn forward(
        &self,
        graph: &Graph,
        params: &[ValueId],
        values: &[Vec<f64>],
        shapes: &[Vec<usize>],
        dtype: DType,
    ) -> Result<f64> {
        let spec = LossSpec::new(LossKind::Output("loss".into()));
        let evaluation =
            evaluation_graph(graph, params, Some(&spec), &BTreeMap::new(), Products::Runtime)?;
        let session = Session::from_bytes(&evaluation.bytes, &SessionOptions::default())?;
        let data = Tensor::zeros(dtype, &[1])?;
        let tensors = tensors(dtype, values, shapes)?;
        let mut feeds = vec![("one", &data)];
        feeds.extend(evaluation.params.iter().map(String::as_str).zip(&tensors));
        let name = evaluation.loss.unwrap_or_default();
        let loss = session.run(&feeds, &[name.as_str()])?;
        Ok(TensorData::from_tensor(&loss[0])?.to_f64s()?[0])
    }

    /// The graph of the case and its loss; a dummy input keeps it a model with data.
    pub fn graph(&self, dtype: DType) -> Result<(Graph, Vec<ValueId>)> {
        let mut g = Graph::new("case", self.opset);
        if !self.domain.is_empty() {
            g.opsets.insert(self.domain.into(), 1);
        }
        let mut random = Random::new(self.seed);
        let (mut inputs, mut params) = (Vec::new(), Vec::new());
        for input in &self.inputs {
            inputs.push(match input {
                Input::Captured(name, shape) => {
                    let data = self.draw(shape, &mut random);
                    params.push(g.add_initializer(name, float_data(dtype, shape, &data)?)?);
                    continue;
                }
                Input::Named(name, values) => {
                    let shape = if values.len() == 1 { vec![] } else { vec![values.len()] };
                    g.add_initializer(name, TensorData::ints(values).reshaped(&shape)?)?;
                    continue;
                }
                Input::Param(shape) => {
                    let data = self.draw(shape, &mut random);
                    let v = g.add_initializer("", float_data(dtype, shape, &data)?)?;
                    params.push(v);
                    Some(v)
                }
                Input::Values(shape, data) => {
                    let v = g.add_initializer("", float_data(dtype, shape, data)?)?;
                    params.push(v);
                    Some(v)
                }
                Input::Fixed(shape, data) => {
                    Some(g.add_initializer("", float_data(dtype, shape, data)?)?)
                }
                Input::Again(i) => inputs[*i],
                Input::Constant(data) => Some(g.add_initializer("", data.clone())?),
                Input::None => None,
            });
        }
        let mut attributes = self.attributes.clone();
        if let Some(axes) = &self.axes {
            if self.op == "ReduceSum" || self.opset >= 18 {
                inputs.push(Some(g.add_initializer("", TensorData::ints(axes))?));
            } else {
                attributes.push(("axes", Attribute::Ints(axes.clone())));
            }
        }
        let outputs: Vec<Option<ValueId>> =
            (0..self.n_outputs).map(|_| g.add_value("").map(Some)).collect::<Result<_>>()?;
        g.push_node(Node {
            name: "tested".into(),
            op: self.op.into(),
            domain: self.domain.into(),
            inputs,
            outputs: outputs.clone(),
            attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        });
        let used = self.used.iter().filter_map(|&i| outputs[i]);
        self.loss(&mut g, dtype, &used.collect::<Vec<_>>())?;
        Ok((g, params))
    }

    fn draw(&self, shape: &[usize], random: &mut Random) -> Vec<f64> {
        let (low, high, signed) = self.range;
        let one = |_| {
            let size = low + (high - low) * random.unit();
            if signed && random.unit() < 0.5 { -size } else { size }
        };
        (0..shape.iter().product::<usize>()).map(one).collect()
    }

    /// loss = 0 · one + Σ over outputs of Σ sin(1 + 7 i) y_i: every element counts differently.
    fn loss(&self, g: &mut Graph, dtype: DType, outputs: &[ValueId]) -> Result<()> {
        let ty = mmopt::onnx::ValueType::known(dtype, &[1]);
        let mut total = g.add_input("one", ty)?;
        let minus_one = g.add_initializer("", TensorData::ints(&[-1]))?;
        let (zero, one) = (scalar(g, 0)?, scalar(g, 1)?);
        for &y in outputs {
            let flat = g.op("Reshape", &[y, minus_one], []);
            let size = g.op("Size", &[flat], []);
            let places = g.op("Range", &[zero, size, one], []);
            let to = Attribute::Int(i64::from(DType::F32.onnx()));
            let places = g.op("Cast", &[places], [("to", to)]);
            let seven = g.add_initializer("", TensorData::scalar(DType::F32, 7.0)?)?;
            let angles = g.op("Mul", &[places, seven], []);
            let weights = g.op("Sin", &[angles], []);
            let half = g.add_initializer("", TensorData::scalar(DType::F32, 0.3)?)?;
            let weights = g.op("Add", &[weights, half], []);
            let to = Attribute::Int(i64::from(dtype.onnx()));
            let weights = g.op("Cast", &[weights], [("to", to)]);
            let to = Attribute::Int(i64::from(dtype.onnx()));
            let wide = g.op("Cast", &[flat], [("to", to)]);
            let product = g.op("Mul", &[wide, weights], []);
            let axis = g.add_initializer("", TensorData::ints(&[0]))?;
            let sum = g.op("ReduceSum", &[product, axis], []);
            total = g.op("Add", &[total, sum], []);
        }
        g.rename(total, "loss")?;
        g.add_output(total);
        Ok(())
    }
}

fn scalar(g: &mut Graph, value: i64) -> Result<ValueId> {
    g.add_initializer("", TensorData::ints(&[value]).reshaped(&[])?)
}

fn float_data(dtype: DType, shape: &[usize], values: &[f64]) -> Result<TensorData> {
    TensorData::from_tensor(&float_tensor(dtype, shape, values)?)
}

fn float_tensor(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor> {
    if dtype == DType::F64 {
        return Tensor::from_slice(shape, values);
    }
    let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    Tensor::from_slice(shape, &narrow)
}

fn tensors(dtype: DType, values: &[Vec<f64>], shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
    values.iter().zip(shapes).map(|(v, s)| float_tensor(dtype, s, v)).collect()
}

fn lacks_kernel(e: &Error) -> bool {
    let text = e.message();
    [
        "NOT_IMPLEMENTED",
        "has no kernel for this form",
        "Failed to find kernel",
        "Type 'tensor(double)'",
        "different types (tensor(double) and tensor(float)",
    ]
    .iter()
    .any(|t| text.contains(t))
}

/// Σ gradient · direction, gradients with the shapes of their parameters.
fn along(
    training: &TrainingGraph,
    direction: &[Vec<f64>],
    shapes: &[Vec<usize>],
    gradients: &[Vec<f64>],
) -> Result<f64> {
    let with = training.grads.iter().zip(direction).zip(shapes).filter(|((g, _), _)| g.is_some());
    let mut sum = 0.0;
    for (gradient, ((_, direction), shape)) in gradients.iter().zip(with) {
        if gradient.len() != shape.iter().product::<usize>() {
            return Err(Error::shape(format!("{} elements for {shape:?}", gradient.len())));
        }
        sum += gradient.iter().zip(direction).map(|(g, d)| g * d).sum::<f64>();
    }
    Ok(sum)
}

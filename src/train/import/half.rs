//! Models stored in f16 or bf16: they are trained in f32 and written back in their types.
//!
//! *widening*: a graph in which every half type has become f32 (initializers, constants, what casts
//! and other operators are told to make, inputs and outputs) computes the same function without
//! rounding between its operators. Weights lose nothing by it, and rounding them to nearest, ties
//! to even, brings back what they were.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result};
use crate::memory::Gather;
use crate::onnx::{Attribute, Graph, Node, TensorData, ValueId, ValueType};
use crate::tensor::{DType, Tensor};

/// What a graph was before it was widened; nothing for a graph without half types.
#[derive(Clone, Debug, Default)]
pub(in crate::train) struct HalfTypes {
    /// Of values: inputs, outputs, initializers and what is computed.
    values: HashMap<ValueId, DType>,
    /// What a node, found by its first output, is told to make.
    made: HashMap<ValueId, DType>,
    /// Of initializers, by the address of their widened bytes, which copies share.
    by_bytes: HashMap<usize, DType>,
}

/// The type, where it is f16 or bf16.
fn if_half(dtype: Option<DType>) -> Option<DType> {
    dtype.filter(|d| matches!(d, DType::F16 | DType::BF16))
}

impl HalfTypes {
    /// Widens a graph.
    ///
    /// # Errors
    /// `Unsupported` where a function or the body of a node has half types.
    pub fn widen(graph: &mut Graph) -> Result<Self> {
        let mut found = Self::default();
        if !has_half_types(graph) {
            return Ok(found);
        }
        check_bodies(graph)?;
        for v in graph.value_ids() {
            let ty = graph.value(v).ty.clone();
            if let Some(dtype) = if_half(ty.dtype) {
                found.values.insert(v, dtype);
                graph.set_type(v, ValueType { dtype: Some(DType::F32), ..ty });
            }
        }
        let narrow =
            graph.initializers().iter().filter(|(_, d)| if_half(Some(d.dtype())).is_some());
        let narrow: Vec<(ValueId, TensorData)> = narrow.map(|(&v, d)| (v, d.clone())).collect();
        for (v, data) in narrow {
            let wide = widened(&data)?;
            found.values.insert(v, data.dtype());
            found.by_bytes.insert(wide.bytes().as_ptr() as usize, data.dtype());
            graph.set_initializer(v, wide);
        }
        for id in graph.node_ids() {
            let Some(y) = graph.node(id).output(0) else { continue };
            if let Some(dtype) = told_type(graph.node(id)) {
                found.made.insert(y, dtype);
                tell_type(graph.node_mut(id), DType::F32)?;
            }
        }
        Ok(found)
    }

    /// Whether the graph had half types.
    pub fn any(&self) -> bool {
        !self.values.is_empty() || !self.made.is_empty()
    }

    /// The type that a parameter, with these values when it was read, is stored in.
    pub fn stored(&self, v: ValueId, data: Option<&TensorData>) -> Option<DType> {
        let by_bytes = || self.by_bytes.get(&(data?.bytes().as_ptr() as usize)).copied();
        let of = self.values.get(&v).or_else(|| self.made.get(&v)).copied();
        of.or_else(by_bytes)
    }

    /// Gives what is left of the graph, and has its values, its types back. Parameters are put in
    /// by the caller, in their types.
    pub fn restore(&self, graph: &mut Graph) -> Result<()> {
        for (&v, &dtype) in &self.values {
            let ty = graph.value(v).ty.clone();
            graph.set_type(v, ValueType { dtype: Some(dtype), ..ty });
            let data = graph.initializer(v).filter(|d| d.dtype() == DType::F32).cloned();
            if let Some(data) = data {
                let narrow = narrowed(graph.value_name(v), &data, dtype)?;
                graph.set_initializer(v, narrow);
            }
        }
        for id in graph.node_ids() {
            let made = graph.node(id).output(0).and_then(|y| self.made.get(&y).copied());
            if let Some(dtype) = made {
                tell_type(graph.node_mut(id), dtype)?;
            }
        }
        Ok(())
    }
}

/// A parameter rounded to the type that it is stored in, to nearest, ties to even.
///
/// # Errors
/// `NonFinite` names a parameter with an element that is finite and would become infinite.
pub(in crate::train) fn rounded(name: &str, value: &Tensor, dtype: DType) -> Result<Tensor> {
    let data = narrowed(name, &TensorData::from_tensor(value)?, dtype)?;
    data.to_tensor()
}

fn narrowed(name: &str, data: &TensorData, dtype: DType) -> Result<TensorData> {
    let values = data.bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let round = |x: f32| match dtype {
        DType::F16 => half::f16::from_f32(x).to_le_bytes(),
        _ => half::bf16::from_f32(x).to_le_bytes(),
    };
    // All bits of the exponent are set in what is not finite.
    let exponent: u16 = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
    let is_lost = |x: f32| x.is_finite() && u16::from_le_bytes(round(x)) & exponent == exponent;
    if let Some((at, x)) = values.clone().enumerate().find(|(_, x)| is_lost(*x)) {
        return Err(Error::new(
            Kind::NonFinite,
            format!(
                "parameter '{name}' is stored in {dtype}, in which its element {at}, {x:e}, is \
                 infinite; convert the model to f32 before training, or lower the learning rate"
            ),
        ));
    }
    let bytes: Vec<[u8; 2]> = values.map(round).gathered()?;
    TensorData::new(dtype, data.shape(), bytes.into_flattened().into())
}

fn widened(data: &TensorData) -> Result<TensorData> {
    let halves = data.bytes().as_chunks::<2>().0.iter();
    let wide: Vec<[u8; 4]> = match data.dtype() {
        DType::F16 => {
            halves.map(|b| half::f16::from_le_bytes(*b).to_f32().to_le_bytes()).gathered()
        }
        _ => halves.map(|b| half::bf16::from_le_bytes(*b).to_f32().to_le_bytes()).gathered(),
    }?;
    TensorData::new(DType::F32, data.shape(), wide.into_flattened().into())
}

/// The attributes that tell a node what type to make.
fn type_attribute(node: &Node) -> Option<&'static str> {
    match node.op.as_str() {
        _ if !node.domain.is_empty() => None,
        "Cast" => Some("to"),
        "Constant" | "ConstantOfShape" => Some("value"),
        "Bernoulli" | "EyeLike" | "RandomNormal" | "RandomNormalLike" | "RandomUniform"
        | "RandomUniformLike" | "SequenceEmpty" => Some("dtype"),
        "BlackmanWindow" | "HammingWindow" | "HannWindow" | "MelWeightMatrix" => {
            Some("output_datatype")
        }
        "DequantizeLinear" => Some("output_dtype"),
        _ => None,
    }
}

/// The half type that a node is told to make.
fn told_type(node: &Node) -> Option<DType> {
    match node.attributes.get(type_attribute(node)?)? {
        Attribute::Int(code) => if_half(DType::from_onnx(i32::try_from(*code).ok()?).ok()),
        Attribute::Tensor(data) => if_half(Some(data.dtype())),
        _ => None,
    }
}

fn tell_type(node: &mut Node, dtype: DType) -> Result<()> {
    let Some(name) = type_attribute(node) else { return Ok(()) };
    let told = match node.attributes.get(name) {
        Some(Attribute::Tensor(data)) if dtype == DType::F32 => Attribute::Tensor(widened(data)?),
        Some(Attribute::Tensor(data)) => Attribute::Tensor(narrowed(&node.name, data, dtype)?),
        _ => Attribute::Int(i64::from(dtype.onnx())),
    };
    node.attributes.insert(name.to_owned(), told);
    Ok(())
}

fn has_half_types(graph: &Graph) -> bool {
    let values = graph.values().iter().any(|v| if_half(v.ty.dtype).is_some());
    let data = graph.initializers().values().any(|d| if_half(Some(d.dtype())).is_some());
    values || data || graph.nodes().iter().any(|n| told_type(n).is_some())
}

/// Refuses half types where they are not widened: in bodies and functions.
fn check_bodies(graph: &Graph) -> Result<()> {
    let refused = |what: String| {
        Error::unsupported(format!(
            "model '{}': {what}, in a model with f16 or bf16; export it in f32, or without",
            graph.name
        ))
    };
    if let Some(function) = graph.functions.first() {
        return Err(refused(format!("it has the function '{}'", function.name)));
    }
    let has_body = |n: &Node| n.attributes.values().any(|a| matches!(a, Attribute::Graph(_)));
    match graph.node_ids().find(|&id| has_body(graph.node(id))) {
        Some(id) => Err(refused(format!("{} has a body", graph.describe(id)))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow_graph(dtype: DType) -> Graph {
        let mut g = Graph::new("narrow", 17);
        let x = g.add_input("x", ValueType::known(DType::I64, &[2])).unwrap();
        let code = [("to", Attribute::Int(i64::from(dtype.onnx())))];
        let x = g.op("Cast", &[x], code);
        let w = TensorData::scalar(dtype, 1.5).unwrap();
        let w = g.add_initializer("w", w).unwrap();
        let c = [("value", Attribute::Tensor(TensorData::scalar(dtype, -0.25).unwrap()))];
        let c = g.op("Constant", &[], c);
        let y = g.op("Mul", &[x, w], []);
        let y = g.op("Add", &[y, c], []);
        g.rename(y, "y").unwrap();
        g.set_type(y, ValueType::known(dtype, &[2]));
        g.add_output(y);
        g
    }

    #[test]
    fn a_widened_graph_comes_back() {
        for dtype in [DType::F16, DType::BF16] {
            let before = narrow_graph(dtype);
            let mut g = before.clone();
            let types = HalfTypes::widen(&mut g).unwrap();
            assert!(types.any() && !has_half_types(&g));
            let w = g.find("w").unwrap();
            assert_eq!(g.initializer(w).unwrap().to_f64s().unwrap(), [1.5]);
            assert_eq!(types.stored(w, None), Some(dtype));
            types.restore(&mut g).unwrap();
            assert_eq!(g.to_bytes().unwrap(), before.to_bytes().unwrap());
        }
        let mut wide = Graph::new("wide", 17);
        assert!(!HalfTypes::widen(&mut wide).unwrap().any());
    }

    #[test]
    fn numbers_are_rounded_to_nearest_ties_to_even() {
        let check = |dtype: DType, x: f32, expected: f32| {
            let x = Tensor::from_slice(&[1], &[x]).unwrap();
            let data = TensorData::from_tensor(&rounded("w", &x, dtype).unwrap()).unwrap();
            assert_eq!(data.to_f64s().unwrap(), [f64::from(expected)], "{dtype}");
        };
        let (f16, bf16) = (DType::F16, DType::BF16);
        // Between two numbers: to the one whose last bit is 0.
        check(f16, 1.0 + 1.0 / 2048.0, 1.0);
        check(f16, 1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0);
        check(bf16, 1.0 + 1.0 / 256.0, 1.0);
        check(bf16, 1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0);
        check(f16, 65_519.0, 65_504.0);
        for (dtype, x) in [(f16, 65_520.0), (f16, -1e5), (bf16, f32::MAX)] {
            let x = Tensor::from_slice(&[2], &[0.0, x]).unwrap();
            let e = rounded("h.w", &x, dtype).unwrap_err();
            assert_eq!(e.kind(), Kind::NonFinite);
            let text = e.message();
            assert!(text.contains("'h.w'") && text.contains("element 1"), "{text}");
        }
        // What is infinite already is another's concern.
        let x = Tensor::from_slice(&[1], &[f32::INFINITY]).unwrap();
        assert!(rounded("w", &x, f16).is_ok());
    }

    #[test]
    fn bodies_are_refused() {
        let mut g = narrow_graph(DType::F16);
        g.functions
            .push(crate::onnx::proto::FunctionProto { name: "f".into(), ..Default::default() });
        let e = HalfTypes::widen(&mut g).unwrap_err();
        assert!(e.kind() == Kind::Unsupported && e.message().contains("'f'"), "{e}");
    }
}

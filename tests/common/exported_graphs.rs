//! Small graphs as exporters leave them, for the tests in Rust and in C.

#![allow(dead_code, clippy::unwrap_used)]

use mmopt::onnx::{Attribute, Dim, Graph, TensorData, ValueId, ValueType};
use mmopt::tensor::DType;

pub const VOCABULARY: usize = 11;
pub const WIDTH: usize = 6;

/// Numbers in -0.5..0.5 that differ from each other.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

pub fn floats(shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::from_slice(shape, values).unwrap()
}

fn free(dtype: DType, names: &[&str]) -> ValueType {
    let shape = names.iter().map(|n| match n.parse() {
        Ok(size) => Dim::Known(size),
        Err(_) => Dim::Symbol((*n).to_owned()),
    });
    ValueType { dtype: Some(dtype), shape: Some(shape.collect()) }
}

/// Appends a node under a name.
fn named<const N: usize>(
    g: &mut Graph,
    name: &str,
    op: &str,
    inputs: &[ValueId],
    attributes: [(&str, Attribute); N],
) -> ValueId {
    let y = g.op(op, inputs, attributes);
    let last = g.node_ids().next_back().unwrap();
    g.node_mut(last).name = name.into();
    y
}

/// Token tags from ids [batch, length], with everything that exporters do to parameters: `zero` is
/// one initializer for two biases; `ln2.weight` is an Identity; `onnx::MatMul_12` is a transposed copy of
/// `layer.dense.weight`; `/m/fc/Constant_output_0` is a Constant node; `w_quantized` is i8;
/// `val_9` is the transpose of `emb.weight`. The output is `logits` [batch, length, vocabulary].
pub fn exported() -> Graph {
    let (v, h) = (VOCABULARY, WIDTH);
    let mut g = Graph::new("exported", 17);
    let ids = g.add_input("input_ids", free(DType::I64, &["batch", "length"])).unwrap();
    let table = noise(1, v * h);
    let turned: Vec<f32> = (0..v * h).map(|i| table[(i % v) * h + i / v]).collect();
    let mut hold = |name: &str, data: TensorData| g.add_initializer(name, data).unwrap();
    let emb = hold("emb.weight", floats(&[v, h], &table));
    let head = hold("val_9", floats(&[h, v], &turned));
    let gain = hold("ln.weight", floats(&[h], &[1.0; WIDTH]));
    let zero = hold("zero", floats(&[h], &[0.0; WIDTH]));
    let dense = hold("onnx::MatMul_12", floats(&[h, h], &noise(2, h * h)));
    let bias = hold("layer.dense.bias", floats(&[h], &noise(3, h)));
    let quantised: Vec<i8> = noise(4, h * h).iter().map(|x| (x * 200.0) as i8).collect();
    let bytes: Vec<u8> = quantised.iter().map(|&b| b as u8).collect();
    let quantised = TensorData::new(DType::I8, &[h, h], bytes.into()).unwrap();
    let quantised = hold("w_quantized", quantised);
    let scale = hold("w_scale", floats(&[], &[0.01]));

    let x = named(&mut g, "/m/emb/Gather", "Gather", &[emb, ids], []);
    let norm = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(1e-5))];
    let x = named(&mut g, "/m/ln/LayerNormalization", "LayerNormalization", &[x, gain, zero], norm);
    let x = named(&mut g, "/m/layer/dense/MatMul", "MatMul", &[x, dense], []);
    let x = named(&mut g, "/m/layer/dense/Add", "Add", &[x, bias], []);
    let alias = named(&mut g, "Identity_0", "Identity", &[gain], []);
    g.rename(alias, "ln2.weight").unwrap();
    let x = named(&mut g, "/m/ln2/Mul", "Mul", &[x, alias], []);
    let x = named(&mut g, "/m/ln2/Add", "Add", &[x, zero], []);
    let constant = [("value", Attribute::Tensor(floats(&[h, h], &noise(5, h * h))))];
    let fc = named(&mut g, "/m/fc/Constant", "Constant", &[], constant);
    g.rename(fc, "/m/fc/Constant_output_0").unwrap();
    let x = named(&mut g, "/m/fc/MatMul", "MatMul", &[x, fc], []);
    let weight = named(&mut g, "Dequantize", "DequantizeLinear", &[quantised, scale], []);
    let small = named(&mut g, "/m/q/MatMul", "MatMul", &[x, weight], []);
    let x = named(&mut g, "/m/Add", "Add", &[x, small], []);
    let y = named(&mut g, "/m/head/MatMul", "MatMul", &[x, head], []);
    g.rename(y, "logits").unwrap();
    g.set_type(y, free(DType::F32, &["batch", "length", &v.to_string()]));
    g.add_output(y);
    g
}

/// y = x w + b for x [batch, 3], w [3, 2]; the output is `y`.
pub fn linear(dtype: DType) -> Graph {
    let mut g = Graph::new("linear", 17);
    let x = g.add_input("x", free(dtype, &["batch", "3"])).unwrap();
    let hold = |shape: &[usize], seed: u64| {
        let values = noise(seed, shape.iter().product());
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        match dtype {
            DType::F64 => TensorData::from_slice(shape, &wide).unwrap(),
            DType::F16 => {
                let narrow: Vec<half::f16> = wide.iter().map(|&v| half::f16::from_f64(v)).collect();
                TensorData::from_slice(shape, &narrow).unwrap()
            }
            _ => floats(shape, &values),
        }
    };
    let w = g.add_initializer("w", hold(&[3, 2], 6)).unwrap();
    let b = g.add_initializer("b", hold(&[2], 7)).unwrap();
    let y = named(&mut g, "product", "MatMul", &[x, w], []);
    let y = named(&mut g, "sum", "Add", &[y, b], []);
    g.rename(y, "y").unwrap();
    g.set_type(y, free(dtype, &["batch", "2"]));
    g.add_output(y);
    g
}

/// [`linear`] with the mean squared difference to `target` and its gradients, written by hand.
pub fn linear_with_gradients(dtype: DType) -> Graph {
    let mut g = linear(dtype);
    let target = g.add_input("target", free(dtype, &["batch", "2"])).unwrap();
    let (x, y) = (g.find("x").unwrap(), g.find("y").unwrap());
    let d = named(&mut g, "difference", "Sub", &[y, target], []);
    let square = named(&mut g, "square", "Mul", &[d, d], []);
    let loss = named(&mut g, "mean", "ReduceMean", &[square], [("keepdims", Attribute::Int(0))]);
    g.rename(loss, "mse").unwrap();
    let n = named(&mut g, "size", "Size", &[d], []);
    let to = [("to", Attribute::Int(i64::from(dtype.onnx())))];
    let n = named(&mut g, "float", "Cast", &[n], to);
    let two = g.add_initializer("two", TensorData::scalar(dtype, 2.0).unwrap()).unwrap();
    let factor = named(&mut g, "factor", "Div", &[two, n], []);
    let dy = named(&mut g, "dy", "Mul", &[d, factor], []);
    let perm = [("perm", Attribute::Ints(vec![1, 0]))];
    let turned = named(&mut g, "turned", "Transpose", &[x], perm);
    let dw = named(&mut g, "dw", "MatMul", &[turned, dy], []);
    g.rename(dw, "w_grad").unwrap();
    let axes = g.add_initializer("axes", TensorData::ints(&[0])).unwrap();
    let db = named(&mut g, "db", "ReduceSum", &[dy, axes], [("keepdims", Attribute::Int(0))]);
    g.rename(db, "b_grad").unwrap();
    for (v, dims) in [(loss, &[][..]), (dw, &["3", "2"]), (db, &["2"])] {
        g.set_type(v, free(dtype, dims));
        g.add_output(v);
    }
    g
}

/// y = f(x w) for x [batch, 2], w [2] of ones: with `Log` infinite forward where the product is 0,
/// with `Sqrt` only backward.
pub fn fragile(op: &str) -> Graph {
    let mut g = Graph::new("fragile", 17);
    let x = g.add_input("x", free(DType::F32, &["batch", "2"])).unwrap();
    let w = g.add_initializer("w", floats(&[2], &[1.0, 1.5])).unwrap();
    let product = named(&mut g, "product", "Mul", &[x, w], []);
    let y = named(&mut g, "fragile", op, &[product], []);
    g.rename(y, "y").unwrap();
    g.set_type(y, free(DType::F32, &["batch", "2"]));
    g.add_output(y);
    g
}

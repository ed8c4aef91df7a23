//! Normalisations that are rarely met, in standard operators.

use super::rewrite::input;
use crate::error::{Error, Result};
use crate::onnx::build::check_constant;
use crate::onnx::{Build, Node, TensorData, ValueId};
use crate::tensor::element_count;

/// `MeanVarianceNormalization`: (x - mean x)/(σ + 1e-9), σ² = mean (x - mean x)²
pub(super) fn mean_variance(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = input(node, 0)?;
    let axes = node.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = g.axes_or_all(x, Some(axes))?;
    let mean = g.mean_keep(x, &axes)?;
    let centred = g.sub(x, mean)?;
    let square = g.square(centred)?;
    let variance = g.mean_keep(square, &axes)?;
    // The root has no derivative at 0; there it is a constant.
    let some = g.compare_number("Greater", variance, 0.0)?;
    let one = g.like(variance, 1.0)?;
    let safe = g.select(some, variance, one)?;
    let root = g.unary("Sqrt", safe)?;
    let deviation = g.keep(some, root)?;
    let deviation = g.shift(deviation, 1e-9)?;
    Ok(Some(vec![g.div(centred, deviation)?]))
}

/// `LRN`: x (bias + α/size Σ x²)^-β, the sum over `size` channels around each one
pub(super) fn local_response(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = input(node, 0)?;
    let shape = g.shape(x)?;
    let [batch, channels, places @ ..] = &shape[..] else {
        return Err(Error::shape(format!("LRN of {shape:?}")));
    };
    let size = node.int("size").and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let size = size.ok_or_else(|| Error::data("attribute size is missing"))?;
    let number = |name: &str, default: f32| f64::from(node.float(name).unwrap_or(default));
    let apart = [*batch, *channels, element_count(places)?];
    let square = g.square(x)?;
    let square = g.reshape(square, &apart)?;
    let near = |i: usize, j: usize| j + (size - 1) / 2 >= i && j <= i + size / 2;
    let n = element_count(&[*channels, *channels])?;
    check_constant(n)?;
    let band: Vec<f32> =
        (0..n).map(|k| f32::from(u8::from(near(k / channels, k % channels)))).collect();
    let band = g.constant(TensorData::from_slice(&[*channels, *channels], &band)?)?;
    let dtype = g.dtype(x)?;
    let band = g.cast(band, dtype)?;
    let sum = g.matmul(band, square)?;
    let sum = g.reshape(sum, &shape)?;
    let sum = g.scale(sum, number("alpha", 1e-4) / size as f64)?;
    let base = g.shift(sum, number("bias", 1.0))?;
    let power = g.number(dtype, -number("beta", 0.75))?;
    let factor = g.binary("Pow", base, power)?;
    Ok(Some(vec![g.mul(x, factor)?]))
}

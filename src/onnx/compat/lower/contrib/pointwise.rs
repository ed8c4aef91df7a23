//! GELU in its forms, with and without a bias, and the activations that products are fused with.

use crate::error::{Error, Result};
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Attribute, Build, Node, ValueId};

/// x + b, if there is a b.
fn biased(g: &mut Build, node: &Node) -> Result<ValueId> {
    let x = input(node, 0)?;
    node.input(1).map_or(Ok(x), |b| g.add(x, b))
}

/// y = x/2 (1 + erf(x/√2)), x with the bias added
pub(super) fn gelu(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = biased(g, node)?;
    let scaled = g.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
    let curve = g.unary("Erf", scaled)?;
    half_gated(g, x, curve)
}

/// y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), x with the bias added
pub(super) fn fast_gelu(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = biased(g, node)?;
    let square = g.square(x)?;
    let cube = g.mul(square, x)?;
    let small = g.scale(cube, 0.044_715)?;
    let inner = g.add(x, small)?;
    let scaled = g.scale(inner, (2.0 / std::f64::consts::PI).sqrt())?;
    let curve = g.unary("Tanh", scaled)?;
    half_gated(g, x, curve)
}

/// x/2 (1 + curve)
fn half_gated(g: &mut Build, x: ValueId, curve: ValueId) -> Result<Option<Vec<ValueId>>> {
    let gate = g.shift(curve, 1.0)?;
    let product = g.mul(x, gate)?;
    Ok(Some(vec![g.scale(product, 0.5)?]))
}

/// y = x σ(α x)
pub(super) fn quick_gelu(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = input(node, 0)?;
    let scaled = g.scale(x, f64::from(node.float("alpha").unwrap_or(1.702)))?;
    let gate = g.unary("Sigmoid", scaled)?;
    Ok(Some(vec![g.mul(x, gate)?]))
}

/// The activation that a fused node names, with its parameters (α, β, …) where given.
pub(super) fn activation(
    g: &mut Build,
    x: ValueId,
    node: &Node,
    parameters: &[f32],
) -> Result<ValueId> {
    let Some(op) = node.string("activation").filter(|op| !op.is_empty()) else { return Ok(x) };
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    let alpha = parameters.first().map(|&a| Attribute::Float(a));
    let beta = parameters.get(1).map(|&b| Attribute::Float(b));
    match (op, alpha, beta) {
        ("Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" | "HardSwish", _, _) => {
            g.unary(op, x)
        }
        ("LeakyRelu" | "Elu" | "ThresholdedRelu", None, _) => g.unary(op, x),
        ("LeakyRelu" | "Elu" | "ThresholdedRelu", Some(a), _) => {
            Ok(g.emit(op, &[x], ty, [("alpha", a)]))
        }
        ("HardSigmoid", Some(a), Some(b)) => Ok(g.emit(op, &[x], ty, [("alpha", a), ("beta", b)])),
        ("HardSigmoid", _, _) => g.unary(op, x),
        ("Clip", _, _) => clip(g, x, parameters),
        _ => Err(Error::unsupported(format!("its activation '{op}'"))),
    }
}

fn clip(g: &mut Build, x: ValueId, parameters: &[f32]) -> Result<ValueId> {
    let &[low, high] = parameters else {
        return Err(Error::data("a Clip activation without its two bounds"));
    };
    let (low, high) = (g.like(x, f64::from(low))?, g.like(x, f64::from(high))?);
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    Ok(g.emit("Clip", &[x, low, high], ty, []))
}

//! Activation functions. At a kink the derivative is the one from the left, as in `relu'(0) = 0`.

use crate::autodiff::fused;
use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::{Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Celu", 12, celu).with(&["alpha"]),
    rule("Elu", 6, elu).with(&["alpha"]),
    rule("Gelu", 20, gelu).with(&["approximate"]),
    rule("HardSigmoid", 6, hard_sigmoid).with(&["alpha", "beta"]),
    rule("HardSwish", 14, hard_swish),
    rule("LeakyRelu", 6, leaky_relu).with(&["alpha"]),
    rule("LogSoftmax", 13, log_softmax).with(&["axis"]),
    rule("Mish", 18, mish),
    rule("PRelu", 9, prelu),
    rule("Relu", 13, relu),
    rule("Selu", 6, selu).with(&["alpha", "gamma"]),
    rule("Shrink", 9, shrink).with(&["bias", "lambd"]),
    rule("Sigmoid", 13, sigmoid),
    rule("Softmax", 13, softmax).with(&["axis"]),
    rule("Softplus", 1, softplus),
    rule("Softsign", 1, softsign),
    rule("Swish", 24, swish).with(&["alpha"]),
    rule("Tanh", 13, tanh),
    rule("ThresholdedRelu", 10, thresholded_relu).with(&["alpha"]),
];

type G<'g> = Build<'g>;

/// dx = dy · the derivative that `slope` writes from x and y.
fn chain<'g>(
    cx: &mut RuleCx<'_, 'g>,
    slope: impl FnOnce(&mut G<'g>, ValueId, ValueId) -> Result<ValueId>,
) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let slope = slope(g, x, y)?;
        g.mul(dy, slope)
    })
}

/// x > 0 ? positive : negative
fn by_sign(g: &mut G, x: ValueId, positive: ValueId, negative: ValueId) -> Result<ValueId> {
    let above = g.compare_number("Greater", x, 0.0)?;
    g.select(above, positive, negative)
}

/// y = max(x, 0)        dx = dy [y > 0]
fn relu(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, _, y| {
        let zero = g.like(y, 0.0)?;
        g.indicator("Greater", y, zero)
    })
}

/// y = x > 0 ? x : αx        dx = dy (x > 0 ? 1 : α)
fn leaky_relu(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(0.01));
    chain(cx, |g, x, _| {
        let (one, alpha) = (g.like(x, 1.0)?, g.like(x, alpha)?);
        by_sign(g, x, one, alpha)
    })
}

/// y = x > 0 ? x : s x        dx = dy (x > 0 ? 1 : s)        ds = dy min(x, 0)
fn prelu(cx: &mut RuleCx) -> Result<()> {
    let (x, s, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    chain(cx, |g, x, _| {
        let one = g.like(x, 1.0)?;
        by_sign(g, x, one, s)
    })?;
    cx.add_grad(1, |g| {
        let zero = g.like(x, 0.0)?;
        let low = g.binary("Min", x, zero)?;
        g.mul(dy, low)
    })
}

/// y = x > 0 ? x : α(eˣ - 1)        dx = dy (x > 0 ? 1 : y + α)
fn elu(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(1.0));
    chain(cx, |g, x, y| {
        let one = g.like(x, 1.0)?;
        let low = g.shift(y, alpha)?;
        by_sign(g, x, one, low)
    })
}

/// y = γ (x > 0 ? x : α(eˣ - 1))        dx = dy (x > 0 ? γ : y + γα)
fn selu(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(1.673_263_2));
    let gamma = f64::from(cx.node().float("gamma").unwrap_or(1.050_701));
    chain(cx, |g, x, y| {
        let high = g.like(x, gamma)?;
        let low = g.shift(y, gamma * alpha)?;
        by_sign(g, x, high, low)
    })
}

/// y = max(x, 0) + min(α(e^(x/α) - 1), 0)        dx = dy (x > 0 ? 1 : y/α + 1)
fn celu(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(1.0));
    chain(cx, |g, x, y| {
        let one = g.like(x, 1.0)?;
        let scaled = g.scale(y, 1.0 / alpha)?;
        let low = g.shift(scaled, 1.0)?;
        by_sign(g, x, one, low)
    })
}

/// y = x > α ? x : 0        dx = dy [x > α]
fn thresholded_relu(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(1.0));
    chain(cx, |g, x, _| {
        let alpha = g.like(x, alpha)?;
        g.indicator("Greater", x, alpha)
    })
}

/// y = x < -λ ? x + b : x > λ ? x - b : 0        dx = dy [|x| > λ]
fn shrink(cx: &mut RuleCx) -> Result<()> {
    let lambda = f64::from(cx.node().float("lambd").unwrap_or(0.5));
    chain(cx, |g, x, _| {
        let size = g.unary("Abs", x)?;
        let lambda = g.like(x, lambda)?;
        g.indicator("Greater", size, lambda)
    })
}

/// σ(x) = 1/(1 + e⁻ˣ)        dx = dy y (1 - y)
fn sigmoid(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, _, y| {
        let rest = g.from_number(1.0, y)?;
        g.mul(y, rest)
    })
}

/// y = tanh x        dx = dy (1 - y²)
fn tanh(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, _, y| {
        let square = g.square(y)?;
        g.from_number(1.0, square)
    })
}

/// y = ln(1 + eˣ)        dx = dy σ(x)
fn softplus(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| g.unary("Sigmoid", x))
}

/// y = x/(1 + |x|)        dx = dy / (1 + |x|)²
fn softsign(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| {
        let size = g.unary("Abs", x)?;
        let below = g.shift(size, 1.0)?;
        let square = g.square(below)?;
        g.unary("Reciprocal", square)
    })
}

/// y = max(0, min(1, αx + β))        dx = dy α [0 < y < 1]
fn hard_sigmoid(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(0.2));
    chain(cx, |g, _, y| {
        let inside = strictly_inside(g, y, 0.0, 1.0)?;
        g.scale(inside, alpha)
    })
}

/// [low < x < high]
fn strictly_inside(g: &mut G, x: ValueId, low: f64, high: f64) -> Result<ValueId> {
    let (low, high) = (g.like(x, low)?, g.like(x, high)?);
    let above = g.indicator("Greater", x, low)?;
    let below = g.indicator("Less", x, high)?;
    g.mul(above, below)
}

/// y = x max(0, min(1, x/6 + 1/2))        dx = dy (x >= 3 ? 1 : x <= -3 ? 0 : x/3 + 1/2)
fn hard_swish(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| {
        let third = g.scale(x, 1.0 / 3.0)?;
        let middle = g.shift(third, 0.5)?;
        let inside = strictly_inside(g, x, -3.0, 3.0)?;
        let middle = g.mul(middle, inside)?;
        let three = g.like(x, 3.0)?;
        let high = g.indicator("GreaterOrEqual", x, three)?;
        g.add(middle, high)
    })
}

/// y = x tanh(softplus x)        dx = dy (t + x (1 - t²) σ(x)), t = tanh(softplus x)
fn mish(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| {
        let soft = g.unary("Softplus", x)?;
        let t = g.unary("Tanh", soft)?;
        let square = g.square(t)?;
        let rest = g.from_number(1.0, square)?;
        let sigma = g.unary("Sigmoid", x)?;
        let slope = g.mul(rest, sigma)?;
        let slope = g.mul(x, slope)?;
        g.add(t, slope)
    })
}

/// y = x σ(αx)        dx = dy s (1 + αx (1 - s)), s = σ(αx)
fn swish(cx: &mut RuleCx) -> Result<()> {
    let alpha = f64::from(cx.node().float("alpha").unwrap_or(1.0));
    chain(cx, |g, x, _| {
        let inner = g.scale(x, alpha)?;
        let s = g.unary("Sigmoid", inner)?;
        let rest = g.from_number(1.0, s)?;
        let t = g.mul(inner, rest)?;
        let t = g.shift(t, 1.0)?;
        g.mul(s, t)
    })
}

/// y = x Φ(x), or its tanh form        dx: see [`gelu_exact`] and [`gelu_tanh`]
fn gelu(cx: &mut RuleCx) -> Result<()> {
    let x = cx.x(0)?;
    let fused = fused::allowed(cx.g(), x);
    match cx.node().string("approximate").unwrap_or("none") {
        "none" if fused => fused_gelu(cx, "GeluGrad"),
        "tanh" if fused => fused_gelu(cx, "GeluTanhGrad"),
        "none" => chain(cx, |g, x, _| gelu_exact(g, x)),
        "tanh" => chain(cx, |g, x, _| gelu_tanh(g, x)),
        other => Err(Error::data(format!("approximate '{other}'"))),
    }
}

fn fused_gelu(cx: &mut RuleCx, op: &str) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| fused::like_last(g, op, &[dy, x]))
}

/// d/dx x Φ(x) = Φ(x) + x φ(x), with Φ(x) = (1 + erf(x/√2))/2 and φ(x) = e^(-x²/2)/√2π
fn gelu_exact(g: &mut G, x: ValueId) -> Result<ValueId> {
    let scaled = g.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
    let erf = g.unary("Erf", scaled)?;
    let erf = g.scale(erf, 0.5)?;
    let cdf = g.shift(erf, 0.5)?;
    let square = g.square(scaled)?;
    let minus = g.neg(square)?;
    let bell = g.unary("Exp", minus)?;
    let bell = g.mul(x, bell)?;
    let bell = g.scale(bell, 0.5 * std::f64::consts::FRAC_2_SQRT_PI / std::f64::consts::SQRT_2)?;
    g.add(cdf, bell)
}

/// y = x/2 (1 + t), t = tanh u, u = c (x + 0.044715 x³), c = √(2/π):
/// dy/dx = (1 + t)/2 + x/2 (1 - t²) c (1 + 0.134145 x²)
fn gelu_tanh(g: &mut G, x: ValueId) -> Result<ValueId> {
    let c = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let square = g.square(x)?;
    let inner = g.scale(square, 0.044715 * c)?;
    let inner = g.shift(inner, c)?;
    let u = g.mul(x, inner)?;
    let t = g.unary("Tanh", u)?;
    let outer = g.scale(square, 3.0 * 0.044715 * c * 0.5)?;
    let outer = g.shift(outer, 0.5 * c)?;
    let t_square = g.square(t)?;
    let rest = g.from_number(1.0, t_square)?;
    let slope = g.mul(outer, rest)?;
    let slope = g.mul(x, slope)?;
    let half = g.scale(t, 0.5)?;
    let half = g.shift(half, 0.5)?;
    g.add(half, slope)
}

/// y = softmax x        dx = y (dy - Σ dy y)
///
/// A row without any finite entry is NaN. Where the model replaces such rows (IsNaN or Where), so
/// does the rule: they have no gradient.
fn softmax(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let axis = cx.axis(-1)?;
    let replaces_nan = is_selected(cx.g(), y);
    cx.add_grad(0, |g| {
        let y = if replaces_nan { without_nan(g, y)? } else { y };
        if axis + 1 == g.rank(y)? && fused::allowed(g, y) {
            return fused::like_last(g, "SoftmaxGrad", &[dy, y]);
        }
        let product = g.mul(dy, y)?;
        let sum = g.sum_keep(product, &[axis])?;
        let centred = g.sub(dy, sum)?;
        g.mul(y, centred)
    })
}

/// Whether an IsNaN or a Where reads y, or a Cast of it.
fn is_selected(g: &G, y: ValueId) -> bool {
    let mut same = vec![y];
    for node in g.graph().nodes() {
        let reads = |v: &Option<ValueId>| v.is_some_and(|v| same.contains(&v));
        match node.op.as_str() {
            "IsNaN" | "Where" if node.inputs.iter().any(reads) => return true,
            "Cast" | "Identity" if reads(&node.input(0)) => same.extend(node.output(0)),
            _ => {}
        }
    }
    false
}

fn without_nan(g: &mut G, y: ValueId) -> Result<ValueId> {
    let shape = g.shape(y)?;
    let nan = g.emit("IsNaN", &[y], (crate::tensor::DType::Bool, &shape), []);
    let zero = g.like(y, 0.0)?;
    g.select(nan, zero, y)
}

/// y = ln softmax x        dx = dy - e^y Σ dy
fn log_softmax(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let axis = cx.axis(-1)?;
    cx.add_grad(0, |g| {
        let sum = g.sum_keep(dy, &[axis])?;
        let p = g.unary("Exp", y)?;
        let share = g.mul(p, sum)?;
        g.sub(dy, share)
    })
}

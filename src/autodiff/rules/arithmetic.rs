//! Elementwise arithmetic. Ties of Max and Min share the gradient equally.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::Result;
use crate::tensor::DType;

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Abs", 13, abs),
    rule("Acos", 7, acos),
    rule("Acosh", 9, acosh),
    rule("Add", 13, add),
    rule("Asin", 7, asin),
    rule("Asinh", 9, asinh),
    rule("Atan", 7, atan),
    rule("Atanh", 9, atanh),
    rule("Cast", 13, pass_cast).with(&["round_mode", "saturate", "to"]),
    rule("CastLike", 15, pass_cast).with(&["round_mode", "saturate"]).types_only(&[1]),
    rule("Clip", 13, clip),
    rule("Cos", 7, cos),
    rule("Cosh", 9, cosh),
    rule("Div", 13, div),
    rule("Erf", 13, erf),
    rule("Exp", 13, exp),
    rule("Identity", 13, pass),
    rule("Log", 13, log),
    rule("Max", 13, extreme),
    rule("Mean", 13, mean),
    rule("Min", 13, extreme),
    rule("Mod", 13, modulo).with(&["fmod"]),
    rule("Mul", 13, mul),
    rule("Neg", 13, neg),
    rule("Pow", 13, pow),
    rule("Reciprocal", 13, reciprocal),
    rule("Sin", 7, sin),
    rule("Sinh", 9, sinh),
    rule("Sqrt", 13, sqrt),
    rule("Sub", 13, sub),
    rule("Sum", 13, sum),
    rule("Tan", 7, tan),
    rule("Where", 16, select),
];

/// y = a + b        da = dy        db = dy
fn add(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    cx.add_grad(0, |_| Ok(dy))?;
    cx.add_grad(1, |_| Ok(dy))
}

/// y = a - b        da = dy        db = -dy
fn sub(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    cx.add_grad(0, |_| Ok(dy))?;
    cx.add_grad(1, |g| g.neg(dy))
}

/// y = a b        da = dy b        db = dy a
fn mul(cx: &mut RuleCx) -> Result<()> {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    cx.add_grad(0, |g| g.mul(dy, b))?;
    cx.add_grad(1, |g| g.mul(dy, a))
}

/// y = a / b        da = dy / b        db = -dy y / b
fn div(cx: &mut RuleCx) -> Result<()> {
    let (b, y, dy) = (cx.x(1)?, cx.y(0)?, cx.dy()?);
    let da = cx.g().div(dy, b)?;
    cx.add_grad(0, |_| Ok(da))?;
    cx.add_grad(1, |g| {
        let t = g.mul(da, y)?;
        g.neg(t)
    })
}

/// y = a - q b, q = a / b towards zero (fmod)        da = dy        db = -dy q
fn modulo(cx: &mut RuleCx) -> Result<()> {
    let (a, b, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |_| Ok(dy))?;
    cx.add_grad(1, |g| {
        let whole = g.sub(a, y)?;
        let q = g.div(whole, b)?;
        let q = g.unary("Round", q)?;
        let t = g.mul(dy, q)?;
        g.neg(t)
    })
}

/// y = x^p        dx = dy p x^(p-1)        dp = dy y ln x, 0 where x <= 0
fn pow(cx: &mut RuleCx) -> Result<()> {
    let (x, p, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    let exponent = cx.number(1);
    cx.add_grad(0, |g| {
        let dtype = g.dtype(x)?;
        let slope = match exponent {
            Some(0.0) => g.zeros_like(x)?,
            Some(1.0) => return Ok(dy),
            Some(2.0) => g.scale(x, 2.0)?,
            Some(3.0) => {
                let square = g.square(x)?;
                g.scale(square, 3.0)?
            }
            Some(0.5) => {
                let half = g.number(dtype, 0.5)?;
                g.div(half, y)?
            }
            _ => {
                let p = g.cast(p, dtype)?;
                let less = g.shift(p, -1.0)?;
                let power = g.binary("Pow", x, less)?;
                g.mul(p, power)?
            }
        };
        g.mul(dy, slope)
    })?;
    cx.add_grad(1, |g| {
        let positive = g.compare_number("Greater", x, 0.0)?;
        let one = g.like(x, 1.0)?;
        let safe = g.select(positive, x, one)?;
        let ln = g.unary("Log", safe)?;
        let t = g.mul(y, ln)?;
        let dp = g.mul(dy, t)?;
        let dtype = g.dtype(p)?;
        g.cast(dp, dtype)
    })
}

/// y = -x        dx = -dy
fn neg(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    cx.add_grad(0, |g| g.neg(dy))
}

/// y = x        dx = dy
fn pass(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    cx.add_grad(0, |_| Ok(dy))
}

/// y = x in another float type        dx = dy in x's type
fn pass_cast(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let dtype = g.dtype(x)?;
        g.cast(dy, dtype)
    })
}

/// y = |x|        dx = dy sign x
fn abs(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let sign = g.unary("Sign", x)?;
        g.mul(dy, sign)
    })
}

/// y = 1 / x        dx = -dy y²
fn reciprocal(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let square = g.square(y)?;
        let t = g.mul(dy, square)?;
        g.neg(t)
    })
}

/// y = √x        dx = dy / 2y
fn sqrt(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let half = g.scale(dy, 0.5)?;
        g.div(half, y)
    })
}

/// y = eˣ        dx = dy y
fn exp(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |g| g.mul(dy, y))
}

/// y = ln x        dx = dy / x
fn log(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| g.div(dy, x))
}

/// y = erf x        dx = dy 2/√π e^(-x²)
fn erf(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let square = g.square(x)?;
        let minus = g.neg(square)?;
        let bell = g.unary("Exp", minus)?;
        let slope = g.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)?;
        g.mul(dy, slope)
    })
}

/// y = sin x        dx = dy cos x
fn sin(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let slope = g.unary("Cos", x)?;
        g.mul(dy, slope)
    })
}

/// y = cos x        dx = -dy sin x
fn cos(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let sine = g.unary("Sin", x)?;
        let slope = g.neg(sine)?;
        g.mul(dy, slope)
    })
}

/// y = tan x        dx = dy (1 + y²)
fn tan(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let square = g.square(y)?;
        let slope = g.shift(square, 1.0)?;
        g.mul(dy, slope)
    })
}

/// dx = dy / √(±x² + c), or with `root` false dy / (±x² + c)
fn inverse(cx: &mut RuleCx, sign: f64, c: f64, root: bool) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let square = g.square(x)?;
        let signed = g.scale(square, sign)?;
        let mut below = g.shift(signed, c)?;
        if root {
            below = g.unary("Sqrt", below)?;
        }
        g.div(dy, below)
    })
}

/// y = arcsin x        dx = dy / √(1 - x²)
fn asin(cx: &mut RuleCx) -> Result<()> {
    inverse(cx, -1.0, 1.0, true)
}

/// y = arccos x        dx = -dy / √(1 - x²)
fn acos(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let square = g.square(x)?;
        let rest = g.from_number(1.0, square)?;
        let root = g.unary("Sqrt", rest)?;
        let slope = g.div(dy, root)?;
        g.neg(slope)
    })
}

/// y = arctan x        dx = dy / (1 + x²)
fn atan(cx: &mut RuleCx) -> Result<()> {
    inverse(cx, 1.0, 1.0, false)
}

/// y = arsinh x        dx = dy / √(x² + 1)
fn asinh(cx: &mut RuleCx) -> Result<()> {
    inverse(cx, 1.0, 1.0, true)
}

/// y = arcosh x        dx = dy / √(x² - 1)
fn acosh(cx: &mut RuleCx) -> Result<()> {
    inverse(cx, 1.0, -1.0, true)
}

/// y = artanh x        dx = dy / (1 - x²)
fn atanh(cx: &mut RuleCx) -> Result<()> {
    inverse(cx, -1.0, 1.0, false)
}

/// y = sinh x        dx = dy cosh x, with cosh x = (eˣ + e⁻ˣ)/2
fn sinh(cx: &mut RuleCx) -> Result<()> {
    hyperbolic(cx, 1.0)
}

/// y = cosh x        dx = dy sinh x, with sinh x = (eˣ - e⁻ˣ)/2
fn cosh(cx: &mut RuleCx) -> Result<()> {
    hyperbolic(cx, -1.0)
}

fn hyperbolic(cx: &mut RuleCx, sign: f64) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(0, |g| {
        let up = g.unary("Exp", x)?;
        let down = g.unary("Reciprocal", up)?;
        let down = g.scale(down, sign)?;
        let both = g.add(up, down)?;
        let slope = g.scale(both, 0.5)?;
        g.mul(dy, slope)
    })
}

/// y = mask ? a : b        da = mask ? dy : 0        db = mask ? 0 : dy
fn select(cx: &mut RuleCx) -> Result<()> {
    let (mask, dy) = (cx.x(0)?, cx.dy()?);
    cx.add_grad(1, |g| g.keep(mask, dy))?;
    cx.add_grad(2, |g| {
        let zero = g.like(dy, 0.0)?;
        g.select(mask, zero, dy)
    })
}

/// y = min(t, high), t = max(x, low): where low > high, y is high
///
/// dhigh = t > high ? dy : 0        dt = t <= high ? dy : 0
/// dlow = x < low ? dt : 0        dx = x >= low ? dt : 0: at a bound the gradient is x's
fn clip(cx: &mut RuleCx) -> Result<()> {
    let (x, mut dt) = (cx.x(0)?, cx.dy()?);
    let (low, high) = (cx.node().input(1), cx.node().input(2));
    if let Some(high) = high {
        // Where the bounds are known and in order, x > high says the same as t > high.
        let crossed = low.is_some() && cx.number(1).zip(cx.number(2)).is_none_or(|(l, h)| l > h);
        let t = match low.filter(|_| crossed) {
            Some(low) => cx.g().binary("Max", x, low)?,
            None => x,
        };
        let (dy, shape) = (dt, cx.shape(t)?);
        let above = cx.g().emit("Greater", &[t, high], (DType::Bool, &shape), []);
        cx.add_grad(2, |g| g.keep(above, dy))?;
        let zero = cx.g().like(dy, 0.0)?;
        dt = cx.g().select(above, zero, dy)?;
    }
    let Some(low) = low else { return cx.add_grad(0, |_| Ok(dt)) };
    let below = cx.g().compare("Less", x, low)?;
    cx.add_grad(1, |g| g.keep(below, dt))?;
    cx.add_grad(0, |g| {
        let zero = g.like(dt, 0.0)?;
        g.select(below, zero, dt)
    })
}

/// y = max(x₀, x₁, …), or min        dxᵢ = dy [xᵢ = y] / Σⱼ [xⱼ = y]
fn extreme(cx: &mut RuleCx) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let shape = cx.shape(y)?;
    let n = cx.node().inputs.len();
    let mut hits = Vec::new();
    for i in 0..n {
        let x = cx.x(i)?;
        let x = cx.g().expand(x, &shape)?;
        hits.push(cx.g().indicator("Equal", x, y)?);
    }
    let count = cx.g().sum(&hits)?;
    let share = cx.g().div(dy, count)?;
    for (i, hit) in hits.into_iter().enumerate() {
        cx.add_grad(i, |g| g.mul(share, hit))?;
    }
    Ok(())
}

/// y = x₀ + x₁ + …        dxᵢ = dy
fn sum(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    (0..cx.node().inputs.len()).try_for_each(|i| cx.add_grad(i, |_| Ok(dy)))
}

/// y = (x₀ + x₁ + …)/n        dxᵢ = dy / n
fn mean(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    let n = cx.node().inputs.len();
    let share = cx.g().scale(dy, 1.0 / n as f64)?;
    (0..n).try_for_each(|i| cx.add_grad(i, |_| Ok(share)))
}

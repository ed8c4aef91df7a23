//! Reductions. Axes come as an attribute or as an input; ties share the gradient equally.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::Result;
use crate::onnx::{Build, ValueId};

/// Attributes of reductions.
const AXES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("CumSum", 11, cumsum).with(&["exclusive", "reverse"]),
    rule("ReduceL1", 13, l1).with(AXES),
    rule("ReduceL2", 13, l2).with(AXES),
    rule("ReduceLogSum", 13, log_sum).with(AXES),
    rule("ReduceLogSumExp", 13, log_sum_exp).with(AXES),
    rule("ReduceMax", 13, extreme).with(AXES),
    rule("ReduceMean", 13, mean).with(AXES),
    rule("ReduceMin", 13, extreme).with(AXES),
    rule("ReduceProd", 13, product).with(AXES),
    rule("ReduceSum", 13, sum).with(AXES),
    rule("ReduceSumSquare", 13, sum_square).with(AXES),
];

/// The reduction's axes, and dy and y with the reduced axes put back at size 1.
struct Reduced {
    axes: Vec<usize>,
    dy: ValueId,
    y: ValueId,
    shape: Vec<usize>,
}

fn reduced(cx: &mut RuleCx) -> Result<Reduced> {
    let (dy, y, axes) = (cx.dy()?, cx.y(0)?, cx.axes()?);
    let shape = cx.x_shape(0)?;
    let mut kept = shape.clone();
    axes.iter().for_each(|&a| kept[a] = 1);
    let dy = cx.g().reshape(dy, &kept)?;
    let y = cx.g().reshape(y, &kept)?;
    Ok(Reduced { axes, dy, y, shape })
}

/// y = Σ x        dx = dy
fn sum(cx: &mut RuleCx) -> Result<()> {
    let r = reduced(cx)?;
    cx.add_grad(0, |g| g.expand(r.dy, &r.shape))
}

/// y = Σ x / n        dx = dy / n
fn mean(cx: &mut RuleCx) -> Result<()> {
    let r = reduced(cx)?;
    let n: usize = r.axes.iter().map(|&a| r.shape[a]).product();
    cx.add_grad(0, |g| {
        let share = g.scale(r.dy, 1.0 / n as f64)?;
        g.expand(share, &r.shape)
    })
}

/// dx = dy · the derivative that `slope` writes from x and the reduction.
fn chain<'g>(
    cx: &mut RuleCx<'_, 'g>,
    slope: impl FnOnce(&mut Build<'g>, ValueId, &Reduced) -> Result<ValueId>,
) -> Result<()> {
    let x = cx.x(0)?;
    let r = reduced(cx)?;
    cx.add_grad(0, |g| {
        let slope = slope(g, x, &r)?;
        g.mul(slope, r.dy)
    })
}

/// y = max x, or min        dx = dy [x = y] / Σ [x = y]
fn extreme(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, r| {
        let hit = g.indicator("Equal", x, r.y)?;
        let count = g.sum_keep(hit, &r.axes)?;
        g.div(hit, count)
    })
}

/// y = Σ x²        dx = 2 dy x
fn sum_square(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| g.scale(x, 2.0))
}

/// y = Σ |x|        dx = dy sign x
fn l1(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, _| g.unary("Sign", x))
}

/// y = √Σ x²        dx = dy x / y, 0 where y = 0
fn l2(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, r| {
        let none = g.compare_number("Equal", r.y, 0.0)?;
        let one = g.like(x, 1.0)?;
        let norm = g.select(none, one, r.y)?;
        g.div(x, norm)
    })
}

/// y = ln Σ x        dx = dy e^-y
fn log_sum(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, _, r| {
        let minus = g.neg(r.y)?;
        let slope = g.unary("Exp", minus)?;
        g.expand(slope, &r.shape)
    })
}

/// y = ln Σ eˣ        dx = dy e^(x-y)
fn log_sum_exp(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, r| {
        let below = g.sub(x, r.y)?;
        g.unary("Exp", below)
    })
}

/// y = Π x        dx = dy Π of the others, also where some x are 0
fn product(cx: &mut RuleCx) -> Result<()> {
    chain(cx, |g, x, r| {
        let zero = g.compare_number("Equal", x, 0.0)?;
        let one = g.like(x, 1.0)?;
        let safe = g.select(zero, one, x)?;
        let product = g.reduce("ReduceProd", safe, &r.axes, true)?;
        let dtype = g.dtype(x)?;
        let is_zero = g.cast(zero, dtype)?;
        let zeros = g.sum_keep(is_zero, &r.axes)?;
        // The product of the others is 0 as soon as one of them is.
        let others = g.sub(zeros, is_zero)?;
        let none = g.compare_number("Equal", others, 0.0)?;
        let rest = g.div(product, safe)?;
        g.keep(none, rest)
    })
}

/// y = running sum of x        dx = running sum of dy the other way round
fn cumsum(cx: &mut RuleCx) -> Result<()> {
    use crate::onnx::Attribute::Int;
    let (axis, dy) = (cx.x(1)?, cx.dy()?);
    let exclusive = cx.node().int("exclusive").unwrap_or(0);
    let reverse = 1 - cx.node().int("reverse").unwrap_or(0);
    cx.add_grad(0, |g| {
        let (dtype, shape) = (g.dtype(dy)?, g.shape(dy)?);
        let attributes = [("exclusive", Int(exclusive)), ("reverse", Int(reverse))];
        Ok(g.emit("CumSum", &[dy, axis], (dtype, &shape), attributes))
    })
}

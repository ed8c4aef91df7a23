//! Pooling by a p-norm.

use super::conv::spread;
use super::pool::{constant_like, ending, pool_window};
use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::Result;
use crate::onnx::build::check_constant;
use crate::onnx::{Build, ValueId};
use crate::tensor::element_count;

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("GlobalLpPool", 2, global).with(&["p"]),
    rule("LpPool", 11, pool).with(&[
        "auto_pad",
        "ceil_mode",
        "dilations",
        "kernel_shape",
        "p",
        "pads",
        "strides",
    ]),
];

/// dy y^(1-p), 0 where y is
fn share(g: &mut Build, dy: ValueId, y: ValueId, p: f64) -> Result<ValueId> {
    let positive = g.compare_number("Greater", y, 0.0)?;
    let one = g.like(y, 1.0)?;
    let safe = g.select(positive, y, one)?;
    let power = g.like(y, 1.0 - p)?;
    let slope = g.binary("Pow", safe, power)?;
    let share = g.mul(dy, slope)?;
    g.keep(positive, share)
}

/// sign x |x|^(p-1)
fn slope(g: &mut Build, x: ValueId, p: f64) -> Result<ValueId> {
    let sign = g.unary("Sign", x)?;
    if p == 1.0 {
        return Ok(sign);
    }
    let size = g.unary("Abs", x)?;
    let power = g.like(x, p - 1.0)?;
    let size = g.binary("Pow", size, power)?;
    g.mul(sign, size)
}

/// y = (Σ |x|^p)^(1/p) over all places        dx = dy y^(1-p) sign x |x|^(p-1)
fn global(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let p = cx.node().int("p").unwrap_or(2) as f64;
    cx.add_grad(0, |g| {
        let share = share(g, dy, y, p)?;
        let slope = slope(g, x, p)?;
        g.mul(slope, share)
    })
}

/// y = (Σ |x|^p)^(1/p) over a window        dx = sign x |x|^(p-1) times dy y^(1-p) spread over it
fn pool(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let p = cx.node().int("p").unwrap_or(2) as f64;
    let (x_shape, y_shape) = (cx.shape(x)?, cx.shape(y)?);
    let window = pool_window(cx, &x_shape, &y_shape)?;
    cx.add_grad(0, |g| {
        let share = share(g, dy, y, p)?;
        let planes = x_shape[0] * x_shape[1];
        let share = g.reshape(share, &[&[planes, 1], &y_shape[2..]].concat())?;
        check_constant(element_count(&window.kernel)?)?;
        let ones = vec![1.0; element_count(&window.kernel)?];
        let ones = constant_like(g, dy, &[&[1, 1], &window.kernel[..]].concat(), &ones)?;
        let wide = [&[planes, 1], &x_shape[2..]].concat();
        let spread = spread(g, (share, ones), &ending(&window, &x_shape, &y_shape), 1, &wide)?;
        let spread = g.reshape(spread, &x_shape)?;
        let slope = slope(g, x, p)?;
        g.mul(slope, spread)
    })
}

//! Pooling. The gradient goes to the largest element of a window, or is spread by a mean.

use super::conv::{Window, spread};
use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::build::check_constant;
use crate::onnx::compat::ends_in_padding;
use crate::onnx::{Build, TensorData, ValueId};
use crate::tensor::{DType, element_count};

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("AveragePool", 11, average).with(&[
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "dilations",
        "kernel_shape",
        "pads",
        "strides",
    ]),
    rule("GlobalAveragePool", 1, global_average),
    rule("GlobalMaxPool", 1, global_max),
    rule("MaxPool", 12, max).with(&[
        "auto_pad",
        "ceil_mode",
        "dilations",
        "kernel_shape",
        "pads",
        "storage_order",
        "strides",
    ]),
];

/// The axes from 2 on, all of which a global pool covers.
fn places(cx: &RuleCx) -> Result<(Vec<usize>, usize)> {
    let shape = cx.x_shape(0)?;
    let axes: Vec<usize> = (2..shape.len()).collect();
    let n = axes.iter().map(|&a| shape[a]).product();
    Ok((axes, n))
}

/// y = mean x        dx = dy / n
fn global_average(cx: &mut RuleCx) -> Result<()> {
    let (dy, shape, (_, n)) = (cx.dy()?, cx.x_shape(0)?, places(cx)?);
    cx.add_grad(0, |g| {
        let share = g.scale(dy, 1.0 / n as f64)?;
        g.expand(share, &shape)
    })
}

/// y = max x        dx = dy [x = y] / Σ [x = y]
fn global_max(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy, (axes, _)) = (cx.x(0)?, cx.y(0)?, cx.dy()?, places(cx)?);
    cx.add_grad(0, |g| {
        let hit = g.indicator("Equal", x, y)?;
        let count = g.sum_keep(hit, &axes)?;
        let share = g.div(hit, count)?;
        g.mul(share, dy)
    })
}

/// y = max over a window        dx = dy at the index in the operator's output 1
fn max(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    if cx.node().int("storage_order").unwrap_or(0) != 0 {
        return Err(Error::unsupported("no gradient rule with storage_order 1"));
    }
    let (x_shape, y_shape) = (cx.shape(x)?, cx.shape(y)?);
    pool_window(cx, &x_shape, &y_shape)?;
    let indices = cx.extra_output(1, DType::I64, &y_shape)?;
    let (all, n) = (element_count(&x_shape)?, element_count(&y_shape)?);
    cx.add_grad(0, |g| {
        let dtype = g.dtype(dy)?;
        let base = g.zeros(dtype, &[all])?;
        let (at, dy) = (g.reshape(indices, &[n])?, g.reshape(dy, &[n])?);
        let dx = g.scatter(base, (at, dy), 0, true)?;
        g.reshape(dx, &x_shape)
    })
}

/// The window of a pool from x to y.
pub(super) fn pool_window(cx: &RuleCx, x_shape: &[usize], y_shape: &[usize]) -> Result<Window> {
    let kernel = cx.node().ints("kernel_shape").unwrap_or_default();
    let kernel: Vec<usize> = kernel.iter().map(|&k| usize::try_from(k).unwrap_or(0)).collect();
    let n = x_shape.len().saturating_sub(2);
    if n == 0 || kernel.len() != n || kernel.contains(&0) || y_shape.len() != x_shape.len() {
        return Err(Error::data(format!("a window {kernel:?} over {x_shape:?}")));
    }
    let window = Window::read(cx, &kernel, &x_shape[2..], &y_shape[2..])?;
    // Some runtimes do not support a step that starts beyond the input.
    let last = |i: usize| (y_shape[i + 2] as i64 - 1) * window.strides[i] as i64;
    let beyond = |i: usize| last(i) >= x_shape[i + 2] as i64 + window.before[i];
    if (0..n).any(beyond) || ends_in_padding(cx.node(), x_shape) {
        return Err(Error::unsupported("ceil_mode with a last step that lies in the padding"));
    }
    Ok(window)
}

/// y = mean over a window        dx = dy / n spread over the window
fn average(cx: &mut RuleCx) -> Result<()> {
    let (dy, x_shape, y_shape) = (cx.dy()?, cx.x_shape(0)?, cx.shape(cx.y(0)?)?);
    let window = pool_window(cx, &x_shape, &y_shape)?;
    let kernel = window.kernel.clone();
    let whole = cx.node().int("count_include_pad").unwrap_or(0) != 0;
    let counts = counts(&window, &x_shape[2..], &y_shape[2..], whole)?;
    cx.add_grad(0, |g| {
        let counts = constant_like(g, dy, &y_shape[2..], &counts)?;
        let share = g.div(dy, counts)?;
        let planes = x_shape[0] * x_shape[1];
        let share = g.reshape(share, &[&[planes, 1], &y_shape[2..]].concat())?;
        check_constant(element_count(&kernel)?)?;
        let ones: Vec<f64> = vec![1.0; element_count(&kernel)?];
        let ones = constant_like(g, dy, &[&[1, 1], &kernel[..]].concat(), &ones)?;
        let wide = [&[planes, 1], &x_shape[2..]].concat();
        let dx = spread(g, (share, ones), &ending(&window, &x_shape, &y_shape), 1, &wide)?;
        g.reshape(dx, &x_shape)
    })
}

/// The window with the padding at the end that the last step of a pool with ceil_mode needs.
pub(super) fn ending(window: &Window, x_shape: &[usize], y_shape: &[usize]) -> Window {
    let mut window = window.clone();
    for i in 0..window.kernel.len() {
        let reach = window.reach(i, y_shape[i + 2]);
        let over = reach.saturating_sub(window.before[i] + x_shape[i + 2] as i64);
        window.after[i] = over.max(0).max(window.after[i].min(over.max(0)));
    }
    window
}

/// A constant of `like`'s element type.
pub(super) fn constant_like(
    g: &mut Build,
    like: ValueId,
    shape: &[usize],
    data: &[f64],
) -> Result<ValueId> {
    let dtype = g.dtype(like)?;
    let v = g.constant(TensorData::from_slice(shape, data)?)?;
    g.cast(v, dtype)
}

/// How many places each step of the window averages over.
fn counts(window: &Window, wide: &[usize], steps: &[usize], whole: bool) -> Result<Vec<f64>> {
    check_constant(element_count(steps)?)?;
    let mut counts = vec![1.0; element_count(steps)?];
    let mut inner = counts.len();
    for i in 0..steps.len() {
        inner /= steps[i].max(1);
        check_constant(steps[i].saturating_mul(window.kernel[i]))?;
        let along: Vec<f64> = (0..steps[i])
            .map(|step| {
                let start = (step * window.strides[i]) as i64 - window.before[i];
                let end = wide[i] as i64 + if whole { window.after[i] } else { 0 };
                let low = if whole { -window.before[i] } else { 0 };
                let at = |k: usize| start + (k * window.dilations[i]) as i64;
                (0..window.kernel[i]).filter(|&k| (low..end).contains(&at(k))).count() as f64
            })
            .collect();
        for (j, count) in counts.iter_mut().enumerate() {
            *count *= along[(j / inner.max(1)) % steps[i].max(1)];
        }
    }
    Ok(counts)
}

//! Resizing. Along each axis it is a product with a matrix of interpolation weights, which follow
//! from the sizes alone; the gradient is the product with its transpose.
//!
//! Positions are computed in f32, as the runtime computes them. Where rounding would decide which
//! place is nearest, there is no `Resize`: see `onnx::compat::nearest`.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Context, Error, Result};
use crate::onnx::TensorData;
use crate::onnx::build::check_constant;
use crate::onnx::compat::resized_position;
use crate::tensor::element_count;

pub(in crate::autodiff) const ROWS: &[Row] = &[rule("Resize", 13, resize).with(&[
    "antialias",
    "axes",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "keep_aspect_ratio_policy",
    "mode",
    "nearest_mode",
])];

/// How one axis is resized.
struct Axis<'a> {
    from: usize,
    to: usize,
    scale: f32,
    position: &'a str,
    rounding: &'a str,
    cubic: f32,
    exclude_outside: bool,
}

impl Axis<'_> {
    /// Position of output element `i` in the input.
    fn source(&self, i: usize) -> Result<f32> {
        let ends = (self.from, self.to);
        resized_position(self.position, i, ends, self.scale).ok_or_else(|| {
            let mode = self.position;
            let text = format!("no gradient rule for coordinate_transformation_mode '{mode}'");
            Error::unsupported(text)
        })
    }

    fn clamp(&self, i: f32) -> usize {
        (i.max(0.0) as usize).min(self.from - 1)
    }

    fn nearest(&self, i: usize) -> Result<Vec<(usize, f32)>> {
        let x = self.source(i)?;
        let rounded = match self.rounding {
            "floor" => x.floor(),
            "ceil" => x.ceil(),
            "round_prefer_ceil" => x.round(),
            "round_prefer_floor" if x == x.floor() + 0.5 => x.floor(),
            "round_prefer_floor" => x.round(),
            other => return Err(Error::data(format!("nearest_mode '{other}'"))),
        };
        Ok(vec![(self.clamp(rounded), 1.0)])
    }

    fn linear(&self, i: usize) -> Result<Vec<(usize, f32)>> {
        let x = self.source(i)?.clamp(0.0, self.from as f32 - 1.0);
        let low = self.clamp(x.floor());
        let part = x - low as f32;
        Ok(vec![(low, 1.0 - part), ((low + 1).min(self.from - 1), part)])
    }

    fn cubic(&self, i: usize) -> Result<Vec<(usize, f32)>> {
        let (x, a) = (self.source(i)?, self.cubic);
        let low = x.floor();
        let s = x - low;
        let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
        let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
        let weights = [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)];
        let at = |k: usize| low + k as f32 - 1.0;
        if !self.exclude_outside {
            return Ok((0..4).map(|k| (self.clamp(at(k)), weights[k])).collect());
        }
        let inside = |k: &usize| at(*k) >= 0.0 && at(*k) < self.from as f32;
        let total: f32 = (0..4).filter(inside).map(|k| weights[k]).sum();
        Ok((0..4).filter(inside).map(|k| (self.clamp(at(k)), weights[k] / total)).collect())
    }
}

/// y = R₀ ⊗ R₁ … x, one R for each axis        dx = R₀ᵀ ⊗ R₁ᵀ … dy
fn resize(cx: &mut RuleCx) -> Result<()> {
    let (x, dy, x_shape, y_shape) = (cx.x(0)?, cx.dy()?, cx.x_shape(0)?, cx.shape(cx.y(0)?)?);
    if x_shape.len() != y_shape.len() {
        return Err(Error::shape(format!("{x_shape:?} resized to {y_shape:?}")));
    }
    if x_shape.contains(&0) || y_shape.contains(&0) {
        return cx.add_grad(0, |g| g.zeros_like(x));
    }
    let scales = scales(cx, &x_shape, &y_shape)?;
    let stretches = cx.node().string("keep_aspect_ratio_policy").is_none_or(|p| p == "stretch");
    if cx.node().int("antialias").unwrap_or(0) != 0 || !stretches {
        return Err(Error::unsupported(
            "no gradient rule with antialias or keep_aspect_ratio_policy",
        ));
    }
    let mut matrices = Vec::new();
    for (i, &scale) in scales.iter().enumerate() {
        let whole = scale == 1.0 && x_shape[i] == y_shape[i];
        if !whole {
            matrices.push((i, transposed(cx, (x_shape[i], y_shape[i]), scale)?));
        }
    }
    cx.add_grad(0, |g| {
        let dtype = g.dtype(dy)?;
        let mut dx = dy;
        for (i, data) in matrices {
            let shape = g.shape(dx)?;
            let count = |part: &[usize]| part.iter().product::<usize>();
            let apart = [count(&shape[..i]), shape[i], count(&shape[i + 1..])];
            let matrix = g.constant(TensorData::from_slice(&[x_shape[i], y_shape[i]], &data)?)?;
            let matrix = g.cast(matrix, dtype)?;
            let flat = g.reshape(dx, &apart)?;
            let flat = g.matmul(matrix, flat)?;
            let mut shape = shape;
            shape[i] = x_shape[i];
            dx = g.reshape(flat, &shape)?;
        }
        Ok(dx)
    })
}

/// The scale of each axis: from the input, or from the sizes.
fn scales(cx: &RuleCx, x_shape: &[usize], y_shape: &[usize]) -> Result<Vec<f32>> {
    let rank = x_shape.len();
    let axes = match cx.node().ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&a| crate::onnx::build::positive_axis(a, rank))
            .collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let ratio = |i: usize| y_shape[i] as f32 / (x_shape[i] as f32).max(1.0);
    let mut scales = vec![1.0; rank];
    let scales_input = cx.node().input(2).filter(|&v| cx.shape(v).is_ok_and(|s| s != [0]));
    if let Some(v) = scales_input {
        let data =
            cx.constant(v).ok_or_else(|| Error::unsupported("its scales are not constant"))?;
        for (&axis, scale) in axes.iter().zip(data.to_f64s()?) {
            scales[axis] = scale as f32;
        }
        return Ok(scales);
    }
    axes.iter().for_each(|&axis| scales[axis] = ratio(axis));
    Ok(scales)
}

/// The transposed matrix of weights of one axis, `[from, to]`.
fn transposed(cx: &RuleCx, (from, to): (usize, usize), scale: f32) -> Result<Vec<f64>> {
    let n = element_count(&[from, to])?;
    check_constant(n).context(|| format!("resizing an axis from {from} to {to}"))?;
    let text = |name: &str, default| cx.node().string(name).unwrap_or(default).to_owned();
    let position = text("coordinate_transformation_mode", "half_pixel");
    let rounding = text("nearest_mode", "round_prefer_floor");
    let axis = Axis {
        from,
        to,
        scale,
        position: &position,
        rounding: &rounding,
        cubic: cx.node().float("cubic_coeff_a").unwrap_or(-0.75),
        exclude_outside: cx.node().int("exclude_outside").unwrap_or(0) != 0,
    };
    let mut weights = vec![0.0; n];
    for i in 0..to {
        let row = match cx.node().string("mode").unwrap_or("nearest") {
            "nearest" => axis.nearest(i)?,
            "linear" => axis.linear(i)?,
            "cubic" => axis.cubic(i)?,
            other => return Err(Error::data(format!("mode '{other}'"))),
        };
        for (j, weight) in row {
            weights[j * to + i] += f64::from(weight);
        }
    }
    Ok(weights)
}

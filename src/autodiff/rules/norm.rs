//! Normalisation and dropout.

use crate::autodiff::rule::RuleCx;
use crate::autodiff::table::{Row, rule};
use crate::error::{Error, Result};
use crate::onnx::{Build, ValueId};
use crate::tensor::DType;

pub(super) const ROWS: &[Row] =
    &[rule("Dropout", 13, dropout), rule("LayerNormalization", 17, layer_norm)];

/// x̂ and 1/σ of a normalisation over the axes from `axis` on. In f32 the forward node tells mean
/// and 1/σ as outputs 1 and 2; in f64 they are computed again, for those outputs are f32.
fn normalised(cx: &mut RuleCx, axes: &[usize]) -> Result<(ValueId, ValueId)> {
    let x = cx.x(0)?;
    let mut kept = cx.x_shape(0)?;
    axes.iter().for_each(|&a| kept[a] = 1);
    if cx.g().dtype(x)? == DType::F32 {
        let mean = cx.extra_output(1, DType::F32, &kept)?;
        let inverse = cx.extra_output(2, DType::F32, &kept)?;
        let g = cx.g();
        let centred = g.sub(x, mean)?;
        return Ok((g.mul(centred, inverse)?, inverse));
    }
    let epsilon = f64::from(cx.node().float("epsilon").unwrap_or(1e-5));
    let g = cx.g();
    let mean = g.mean_keep(x, axes)?;
    let centred = g.sub(x, mean)?;
    let square = g.square(centred)?;
    let variance = g.mean_keep(square, axes)?;
    let shifted = g.shift(variance, epsilon)?;
    let deviation = g.unary("Sqrt", shifted)?;
    let inverse = g.unary("Reciprocal", deviation)?;
    Ok((g.mul(centred, inverse)?, inverse))
}

/// dx = (dx̂ - mean dx̂ - x̂ mean(dx̂ x̂)) / σ
fn through(
    g: &mut Build,
    dxhat: ValueId,
    (xhat, inverse): (ValueId, ValueId),
    axes: &[usize],
) -> Result<ValueId> {
    let mean = g.mean_keep(dxhat, axes)?;
    let product = g.mul(dxhat, xhat)?;
    let correlation = g.mean_keep(product, axes)?;
    let along = g.mul(xhat, correlation)?;
    let centred = g.sub(dxhat, mean)?;
    let rest = g.sub(centred, along)?;
    g.mul(rest, inverse)
}

/// y = x̂ γ + β, x̂ = (x - mean x)/σ        dγ = Σ dy x̂        dβ = Σ dy        dx: see [`through`]
fn layer_norm(cx: &mut RuleCx) -> Result<()> {
    let (scale, dy) = (cx.x(1)?, cx.dy()?);
    let (first, rank) = (cx.axis(-1)?, cx.x_shape(0)?.len());
    let axes: Vec<usize> = (first..rank).collect();
    let hat = normalised(cx, &axes)?;
    cx.give(0, |g| {
        let dxhat = g.mul(dy, scale)?;
        through(g, dxhat, hat, &axes)
    })?;
    cx.give(1, |g| g.mul(dy, hat.0))?;
    if cx.needs(2) {
        cx.give(2, |_| Ok(dy))?;
    }
    Ok(())
}

/// y = mask x / (1 - r) in training, else x        dx = mask dy / (1 - r), or dy
fn dropout(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let training = match cx.node().input(2) {
        None => false,
        Some(_) => {
            let flag = cx.ints(2)?;
            flag.and_then(|f| f.first().copied()).unwrap_or(0) != 0
        }
    };
    if !training {
        return cx.give(0, |_| Ok(dy));
    }
    let ratio = match cx.node().input(1) {
        None => 0.5,
        Some(_) => cx.number(1).ok_or_else(|| Error::unsupported("its ratio is not a constant"))?,
    };
    if !(0.0..1.0).contains(&ratio) {
        return Err(Error::data(format!("dropout ratio {ratio}")));
    }
    let shape = cx.shape(x)?;
    let mask = cx.extra_output(1, DType::Bool, &shape)?;
    cx.give(0, |g| {
        let dtype = g.dtype(dy)?;
        let mask = g.cast(mask, dtype)?;
        let kept = g.mul(dy, mask)?;
        g.scale(kept, 1.0 / (1.0 - ratio))
    })
}

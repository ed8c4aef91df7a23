//! Normalisation and dropout.

use crate::autodiff::fused;
use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::{Build, ValueId};
use crate::tensor::DType;

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("BatchNormalization", 14, batch_norm).with(&["epsilon", "momentum", "training_mode"]),
    rule("Dropout", 13, dropout).with(&["seed"]),
    rule("GroupNormalization", 21, group_norm).with(&["epsilon", "num_groups", "stash_type"]),
    rule("InstanceNormalization", 6, instance_norm).with(&["epsilon"]),
    rule("LayerNormalization", 17, layer_norm).with(&["axis", "epsilon", "stash_type"]),
    rule("LpNormalization", 1, lp_norm).with(&["axis", "p"]),
    rule("RMSNormalization", 23, rms_norm).with(&["axis", "epsilon", "stash_type"]),
];

/// x̂ and 1/σ of a normalisation over the axes from `axis` on. In f32 mean and
/// 1/σ are outputs 1 and 2 of the forward node; in f64 they are recomputed, since those outputs are
/// f32.
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
    let epsilon = epsilon(cx);
    standardise(cx.g(), x, axes, epsilon)
}

fn epsilon(cx: &RuleCx) -> f64 {
    f64::from(cx.node().float("epsilon").unwrap_or(1e-5))
}

/// x̂ = (x - mean x)/σ and 1/σ over `axes`, σ² = mean (x - mean x)² + ε
fn standardise(
    g: &mut Build,
    x: ValueId,
    axes: &[usize],
    epsilon: f64,
) -> Result<(ValueId, ValueId)> {
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

/// y = x̂ γ + β, x̂ = (x - mean x)/σ        dγ = Σ dy x̂        dβ = Σ dy
/// dx: see [`through`]; of the outputs mean and 1/σ see [`statistics`]
fn layer_norm(cx: &mut RuleCx) -> Result<()> {
    let (first, rank) = (cx.axis(-1)?, cx.x_shape(0)?.len());
    let axes: Vec<usize> = (first..rank).collect();
    let scale = cx.x(1)?;
    if cx.dy_of(1).is_some() || cx.dy_of(2).is_some() {
        return statistics(cx, &axes);
    }
    let dy = cx.dy()?;
    if first + 1 == rank && fused::allowed(cx.g(), dy) && cx.x_shape(1)? == cx.x_shape(0)?[first..]
    {
        return fused_layer_norm(cx, first);
    }
    let hat = normalised(cx, &axes)?;
    cx.add_grad(0, |g| {
        let dxhat = g.mul(dy, scale)?;
        through(g, dxhat, hat, &axes)
    })?;
    cx.add_grad(1, |g| g.mul(dy, hat.0))?;
    if cx.needs(2) {
        cx.add_grad(2, |_| Ok(dy))?;
    }
    Ok(())
}

/// The same with cotangents of the mean and of 1/σ: dx += dmean/n - d(1/σ) x̂/(n σ²)
fn statistics(cx: &mut RuleCx, axes: &[usize]) -> Result<()> {
    let (x, scale, shape) = (cx.x(0)?, cx.x(1)?, cx.x_shape(0)?);
    let (dy, dmean, dinverse) = (cx.dy_of(0), cx.dy_of(1), cx.dy_of(2));
    let n: usize = axes.iter().map(|&a| shape[a]).product();
    let hat = normalised(cx, axes)?;
    cx.add_grad(0, |g| {
        let dtype = g.dtype(x)?;
        let mut terms = Vec::new();
        if let Some(dy) = dy {
            let dxhat = g.mul(dy, scale)?;
            terms.push(through(g, dxhat, hat, axes)?);
        }
        if let Some(dmean) = dmean {
            let dmean = g.cast(dmean, dtype)?;
            let dmean = g.scale(dmean, 1.0 / n as f64)?;
            terms.push(g.expand(dmean, &shape)?);
        }
        if let Some(dinverse) = dinverse {
            let dinverse = g.cast(dinverse, dtype)?;
            let square = g.square(hat.1)?;
            let slope = g.mul(dinverse, square)?;
            let slope = g.scale(slope, -1.0 / n as f64)?;
            terms.push(g.mul(hat.0, slope)?);
        }
        g.sum(&terms)
    })?;
    cx.add_grad(1, |g| match dy {
        Some(dy) => g.mul(dy, hat.0),
        None => g.zeros_like(scale),
    })?;
    if cx.needs(2) {
        let bias = cx.x(2)?;
        cx.add_grad(2, |g| dy.map_or_else(|| g.zeros_like(bias), Ok))?;
    }
    Ok(())
}

/// The same over the last axis, by the fused operator.
fn fused_layer_norm(cx: &mut RuleCx, last: usize) -> Result<()> {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (shape, width) = (cx.x_shape(0)?, cx.x_shape(1)?);
    let mut kept = shape.clone();
    kept[last] = 1;
    let mean = cx.extra_output(1, DType::F32, &kept)?;
    let inverse = cx.extra_output(2, DType::F32, &kept)?;
    let inputs = [dy, x, scale, mean, inverse];
    let outputs = fused::emit(cx.g(), "LayerNormGrad", &inputs, &[&shape, &width, &width], &[])?;
    for (i, dx) in outputs.into_iter().enumerate() {
        if cx.needs(i) {
            cx.add_grad(i, |_| Ok(dx))?;
        }
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
        return cx.add_grad(0, |_| Ok(dy));
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
    cx.add_grad(0, |g| {
        let dtype = g.dtype(dy)?;
        let mask = g.cast(mask, dtype)?;
        let kept = g.mul(dy, mask)?;
        g.scale(kept, 1.0 / (1.0 - ratio))
    })
}

/// y = x/r γ, r = √(mean x² + ε)        dγ = Σ dy x/r        dx = (dx̂ - x̂ mean(dx̂ x̂))/r
fn rms_norm(cx: &mut RuleCx) -> Result<()> {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (first, rank) = (cx.axis(-1)?, cx.x_shape(0)?.len());
    let axes: Vec<usize> = (first..rank).collect();
    let epsilon = epsilon(cx);
    let g = cx.g();
    let square = g.square(x)?;
    let mean = g.mean_keep(square, &axes)?;
    let mean = g.shift(mean, epsilon)?;
    let root = g.unary("Sqrt", mean)?;
    let inverse = g.unary("Reciprocal", root)?;
    let xhat = g.mul(x, inverse)?;
    cx.add_grad(0, |g| {
        let dxhat = g.mul(dy, scale)?;
        let product = g.mul(dxhat, xhat)?;
        let correlation = g.mean_keep(product, &axes)?;
        let along = g.mul(xhat, correlation)?;
        let rest = g.sub(dxhat, along)?;
        g.mul(rest, inverse)
    })?;
    cx.add_grad(1, |g| g.mul(dy, xhat))
}

/// A vector over channels as `[channels, 1, 1, …]`, to broadcast over `rank` axes from axis 1.
fn per_channel(g: &mut Build, v: ValueId, rank: usize) -> Result<ValueId> {
    let channels = g.count(v)?;
    let mut shape = vec![1; rank.saturating_sub(1)];
    if let Some(first) = shape.first_mut() {
        *first = channels;
    }
    g.reshape(v, &shape)
}

/// Σ over all axes but the channels', as a vector.
fn channel_sum(g: &mut Build, x: ValueId) -> Result<ValueId> {
    let axes: Vec<usize> = (0..g.rank(x)?).filter(|&a| a != 1).collect();
    g.reduce("ReduceSum", x, &axes, false)
}

/// Gradients of y = x̂ γ + β with γ and β over channels, once x̂ and 1/σ are known.
fn scaled_norm(cx: &mut RuleCx, (xhat, inverse): (ValueId, ValueId), axes: &[usize]) -> Result<()> {
    let (scale, dy, rank) = (cx.x(1)?, cx.dy()?, cx.x_shape(0)?.len());
    cx.add_grad(0, |g| {
        let scale = per_channel(g, scale, rank)?;
        let dxhat = g.mul(dy, scale)?;
        through(g, dxhat, (xhat, inverse), axes)
    })?;
    cx.add_grad(1, |g| {
        let product = g.mul(dy, xhat)?;
        channel_sum(g, product)
    })?;
    cx.add_grad(2, |g| channel_sum(g, dy))
}

/// y = x̂ γ + β over the places of each channel of each sample        dx: see [`through`]
fn instance_norm(cx: &mut RuleCx) -> Result<()> {
    let (x, epsilon) = (cx.x(0)?, epsilon(cx));
    let axes: Vec<usize> = (2..cx.x_shape(0)?.len()).collect();
    let hat = standardise(cx.g(), x, &axes, epsilon)?;
    scaled_norm(cx, hat, &axes)
}

/// y = x̂ γ + β over groups of channels        dx: see [`through`]
fn group_norm(cx: &mut RuleCx) -> Result<()> {
    let (x, scale, dy, shape) = (cx.x(0)?, cx.x(1)?, cx.dy()?, cx.x_shape(0)?);
    let epsilon = epsilon(cx);
    let groups = cx.node().int("num_groups").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let [batch, channels, places @ ..] = &shape[..] else {
        return Err(Error::shape(format!("group normalisation of {shape:?}")));
    };
    if groups == 0 || channels % groups != 0 {
        return Err(Error::data(format!("{groups} groups of {channels} channels")));
    }
    let inner: usize = places.iter().product::<usize>() * (channels / groups);
    let apart = [*batch, groups, inner];
    let flat = cx.g().reshape(x, &apart)?;
    let (xhat, inverse) = standardise(cx.g(), flat, &[2], epsilon)?;
    let whole = cx.g().reshape(xhat, &shape)?;
    cx.add_grad(0, |g| {
        let scale = per_channel(g, scale, shape.len())?;
        let dxhat = g.mul(dy, scale)?;
        let dxhat = g.reshape(dxhat, &apart)?;
        let dx = through(g, dxhat, (xhat, inverse), &[2])?;
        g.reshape(dx, &shape)
    })?;
    cx.add_grad(1, |g| {
        let product = g.mul(dy, whole)?;
        channel_sum(g, product)
    })?;
    cx.add_grad(2, |g| channel_sum(g, dy))
}

/// y = (x - μ)/√(v + ε) γ + β; in training μ and v are x's own (see [`through`]), else given
fn batch_norm(cx: &mut RuleCx) -> Result<()> {
    let (x, shape, epsilon) = (cx.x(0)?, cx.x_shape(0)?, epsilon(cx));
    if cx.node().int("training_mode") == Some(1) {
        let axes: Vec<usize> = (0..shape.len()).filter(|&a| a != 1).collect();
        let hat = standardise(cx.g(), x, &axes, epsilon)?;
        return scaled_norm(cx, hat, &axes);
    }
    let (scale, mean, variance, dy) = (cx.x(1)?, cx.x(3)?, cx.x(4)?, cx.dy()?);
    let rank = shape.len();
    let g = cx.g();
    let shifted = g.shift(variance, epsilon)?;
    let root = g.unary("Sqrt", shifted)?;
    let inverse = g.unary("Reciprocal", root)?;
    let (mean4, inverse4) = (per_channel(g, mean, rank)?, per_channel(g, inverse, rank)?);
    let centred = g.sub(x, mean4)?;
    let xhat = g.mul(centred, inverse4)?;
    let total = channel_sum(g, dy)?;
    let product = g.mul(dy, xhat)?;
    let projected = channel_sum(g, product)?;
    let slope = g.mul(scale, inverse)?;
    cx.add_grad(0, |g| {
        let slope = per_channel(g, slope, rank)?;
        g.mul(dy, slope)
    })?;
    cx.add_grad(1, |_| Ok(projected))?;
    cx.add_grad(2, |_| Ok(total))?;
    cx.add_grad(3, |g| {
        let dm = g.mul(total, slope)?;
        g.neg(dm)
    })?;
    // dv = -½ Σ dy x̂ γ / (v + ε)
    cx.add_grad(4, |g| {
        let part = g.mul(projected, scale)?;
        let part = g.div(part, shifted)?;
        g.scale(part, -0.5)
    })
}

/// y = x / n, n = Σ|x| or √Σx²        dx = (dy - s Σ dy y)/n, s = sign x or y; 0 where n is, as y
fn lp_norm(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy, axis) = (cx.x(0)?, cx.y(0)?, cx.dy()?, cx.axis(-1)?);
    let p = cx.node().int("p").unwrap_or(2);
    cx.add_grad(0, |g| {
        let op = if p == 1 { "ReduceL1" } else { "ReduceL2" };
        let norm = g.reduce(op, x, &[axis], true)?;
        let direction = if p == 1 { g.unary("Sign", x)? } else { y };
        let product = g.mul(dy, y)?;
        let along = g.sum_keep(product, &[axis])?;
        let along = g.mul(direction, along)?;
        let rest = g.sub(dy, along)?;
        let some = g.compare_number("Greater", norm, 0.0)?;
        let one = g.like(norm, 1.0)?;
        let safe = g.select(some, norm, one)?;
        let dx = g.div(rest, safe)?;
        g.keep(some, dx)
    })
}

//! Convolution. Its input's gradient is the transposed convolution; its weight's gradient is a
//! convolution again, with samples and channels exchanged.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::{Attribute, Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Conv", 11, conv).with(&[
        "auto_pad",
        "dilations",
        "group",
        "kernel_shape",
        "pads",
        "strides",
    ]),
    rule("ConvTranspose", 11, conv_transpose).with(&[
        "auto_pad",
        "dilations",
        "group",
        "kernel_shape",
        "output_padding",
        "output_shape",
        "pads",
        "strides",
    ]),
];

/// Strides, dilations and pads of a window that moves over the axes from 2 on.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub before: Vec<i64>,
    pub after: Vec<i64>,
}

/// Larger strides, dilations and pads are errors, so that sums of them stay in range.
const MAX_STEP: i64 = 1 << 31;

impl Window {
    /// Places along axis `i` from the first to the last that `steps` steps read, pads included.
    pub(super) fn reach(&self, i: usize, steps: usize) -> i64 {
        let moved = (steps as i64 - 1).saturating_mul(self.strides[i] as i64);
        let wide = (self.kernel[i] as i64 - 1).saturating_mul(self.dilations[i] as i64);
        moved.saturating_add(wide).saturating_add(1)
    }

    /// Those that are not padding.
    fn reach_inside(&self, i: usize, steps: usize) -> i64 {
        self.reach(i, steps).saturating_sub(self.before[i] + self.after[i])
    }

    /// From a node's attributes; `wide` is the shape of the places that the window moves over,
    /// `steps` how many steps it takes along each axis.
    pub(super) fn read(
        cx: &RuleCx,
        kernel: &[usize],
        wide: &[usize],
        steps: &[usize],
    ) -> Result<Self> {
        let n = kernel.len();
        let list = |name: &str| -> Result<Vec<usize>> {
            let Some(values) = cx.node().ints(name) else { return Ok(vec![1; n]) };
            let sizes = values
                .iter()
                .map(|&v| usize::try_from(v).ok().filter(|_| (1..=MAX_STEP).contains(&v)));
            let sizes: Option<Vec<usize>> = sizes.collect();
            sizes
                .filter(|s| s.len() == n)
                .ok_or_else(|| Error::data(format!("{name} {values:?} for {n} axes")))
        };
        let (strides, dilations) = (list("strides")?, list("dilations")?);
        if wide.len() != n || steps.len() != n {
            return Err(Error::shape(format!("a window {kernel:?} over {wide:?}")));
        }
        let none = vec![0; n];
        let kernel = kernel.to_vec();
        let mut window = Self { kernel, strides, dilations, before: none.clone(), after: none };
        // With an output shape (of a transposed convolution) the pads follow from it.
        let shaped = cx.node().ints("output_shape").is_some();
        let pads = match cx.node().string("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" if !shaped => {
                cx.node().ints("pads").map_or_else(|| vec![0; 2 * n], <[i64]>::to_vec)
            }
            "VALID" if !shaped => vec![0; 2 * n],
            mode @ ("NOTSET" | "SAME_UPPER" | "SAME_LOWER" | "VALID") => {
                let total =
                    |i: usize| window.reach(i, steps[i]).saturating_sub(wide[i] as i64).max(0);
                let small = (0..n).map(|i| total(i) / 2);
                let large = (0..n).map(|i| total(i) - total(i) / 2);
                if mode == "SAME_UPPER" {
                    small.chain(large).collect()
                } else {
                    large.chain(small).collect()
                }
            }
            mode => return Err(Error::data(format!("auto_pad '{mode}'"))),
        };
        if pads.len() != 2 * n {
            return Err(Error::data(format!("{} pads for {n} axes", pads.len())));
        }
        if pads.iter().any(|p| !(-MAX_STEP..=MAX_STEP).contains(p)) {
            return Err(Error::data(format!("pads {pads:?}")));
        }
        (window.before, window.after) = (pads[..n].to_vec(), pads[n..].to_vec());
        Ok(window)
    }

    fn pads(&self) -> Vec<i64> {
        [&self.before[..], &self.after[..]].concat()
    }
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|&v| v as i64).collect())
}

/// The number of channel groups.
fn groups(cx: &RuleCx) -> Result<usize> {
    let group = cx.node().int("group").unwrap_or(1);
    usize::try_from(group)
        .ok()
        .filter(|&g| g > 0)
        .ok_or_else(|| Error::data(format!("group {group}")))
}

/// Spreads x [n, c, steps..] with weights w over the places that a convolution read: the result
/// has `shape`.
pub(super) fn spread(
    g: &mut Build,
    (x, w): (ValueId, ValueId),
    window: &Window,
    group: usize,
    shape: &[usize],
) -> Result<ValueId> {
    let steps = g.shape(x)?;
    // No step reaches what the strides skip at the end: it becomes output padding, and zeros
    // where the operator does not allow that much.
    let mut extra = Vec::new();
    let mut reached = shape.to_vec();
    let mut missing = vec![0i64; shape.len()];
    for i in 0..window.kernel.len() {
        let lack = (shape[i + 2] as i64).saturating_sub(window.reach_inside(i, steps[i + 2]));
        let most = window.strides[i].max(window.dilations[i]) as i64 - 1;
        extra.push(lack.clamp(0, most));
        missing[i + 2] = lack - lack.clamp(0, most);
        reached[i + 2] = usize::try_from(shape[i + 2] as i64 - missing[i + 2]).unwrap_or(0);
    }
    let dtype = g.dtype(x)?;
    let attributes = [
        ("strides", ints(&window.strides)),
        ("dilations", ints(&window.dilations)),
        ("kernel_shape", ints(&window.kernel)),
        ("pads", Attribute::Ints(window.pads())),
        ("output_padding", Attribute::Ints(extra)),
        ("group", Attribute::Int(group as i64)),
    ];
    let y = g.emit("ConvTranspose", &[x, w], (dtype, &reached), attributes);
    g.pad(y, &vec![0; shape.len()], &missing)
}

/// Convolution of x with w.
fn convolve(
    g: &mut Build,
    (x, w): (ValueId, ValueId),
    window: &Window,
    group: usize,
    shape: &[usize],
) -> Result<ValueId> {
    let dtype = g.dtype(x)?;
    let attributes = [
        ("strides", ints(&window.strides)),
        ("dilations", ints(&window.dilations)),
        ("kernel_shape", ints(&window.kernel)),
        ("pads", Attribute::Ints(window.pads())),
        ("group", Attribute::Int(group as i64)),
    ];
    Ok(g.emit("Conv", &[x, w], (dtype, shape), attributes))
}

/// dw[o, c, k] = Σ over samples and steps of x[c, step·stride + k·dilation - pad] dy[o, step]:
/// a convolution of x with dy where samples are channels, and stride and dilation change places.
fn weight_gradient(
    g: &mut Build,
    (x, dy): (ValueId, ValueId),
    window: &Window,
    group: usize,
    shape: &[usize],
) -> Result<ValueId> {
    let (xs, ys) = (g.shape(x)?, g.shape(dy)?);
    let (samples, wide, steps) = (xs[0], &xs[2..], &ys[2..]);
    let per_group = xs[1] / group;
    let n = wide.len();
    let apart = g.reshape(x, &[&[samples, group, per_group], wide].concat())?;
    let perm: Vec<usize> = [2, 1, 0].into_iter().chain(3..n + 3).collect();
    let swapped = g.transpose(apart, &perm)?;
    let swapped = g.reshape(swapped, &[&[per_group, group * samples], wide].concat())?;
    let exchange: Vec<usize> = [1, 0].into_iter().chain(2..n + 2).collect();
    let dy = g.transpose(dy, &exchange)?;
    let turned = Window {
        kernel: steps.to_vec(),
        strides: window.dilations.clone(),
        dilations: window.strides.clone(),
        ..window.clone()
    };
    let out = |i: usize| {
        let room = wide[i] as i64 + window.before[i] + window.after[i];
        let reach = (steps[i] as i64 - 1).saturating_mul(window.strides[i] as i64);
        let free = room.saturating_sub(reach).saturating_sub(1);
        usize::try_from(free / window.dilations[i] as i64 + 1).unwrap_or(0)
    };
    let full: Vec<usize> = (0..n).map(out).collect();
    let whole = [&[per_group, ys[1]], &full[..]].concat();
    let mut dw = convolve(g, (swapped, dy), &turned, group, &whole)?;
    for i in 0..n {
        dw = g.slice(dw, i + 2, (0, shape[i + 2]))?;
    }
    g.transpose(dw, &exchange)
}

/// Σ dy over all axes but the channels'.
fn bias_gradient(g: &mut Build, dy: ValueId) -> Result<ValueId> {
    let axes: Vec<usize> = (0..g.rank(dy)?).filter(|&a| a != 1).collect();
    g.reduce("ReduceSum", dy, &axes, false)
}

fn shapes(cx: &RuleCx) -> Result<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let (x, w, y) = (cx.x_shape(0)?, cx.x_shape(1)?, cx.shape(cx.y(0)?)?);
    if x.len() < 3 || w.len() != x.len() || y.len() != x.len() {
        return Err(Error::shape(format!("convolution of {x:?} with {w:?}")));
    }
    Ok((x, w, y))
}

/// y = x ∗ w + b        dx = dy spread with w        dw: see [`weight_gradient`]        db = Σ dy
fn conv(cx: &mut RuleCx) -> Result<()> {
    let (x, w, dy, group) = (cx.x(0)?, cx.x(1)?, cx.dy()?, groups(cx)?);
    let (x_shape, w_shape, y_shape) = shapes(cx)?;
    let window = Window::read(cx, &w_shape[2..], &x_shape[2..], &y_shape[2..])?;
    cx.add_grad(0, |g| spread(g, (dy, w), &window, group, &x_shape))?;
    cx.add_grad(1, |g| weight_gradient(g, (x, dy), &window, group, &w_shape))?;
    cx.add_grad(2, |g| bias_gradient(g, dy))
}

/// y = x spread with w, + b        dx = dy ∗ w        dw = that of a convolution from y to x
fn conv_transpose(cx: &mut RuleCx) -> Result<()> {
    let (x, w, dy, group) = (cx.x(0)?, cx.x(1)?, cx.dy()?, groups(cx)?);
    let (x_shape, w_shape, y_shape) = shapes(cx)?;
    let added = cx.node().ints("output_padding").unwrap_or_default();
    let added = |i: usize| usize::try_from(added.get(i).copied().unwrap_or(0)).unwrap_or(0);
    let places: Vec<usize> =
        y_shape[2..].iter().enumerate().map(|(i, y)| y.saturating_sub(added(i))).collect();
    let mut window = Window::read(cx, &w_shape[2..], &places, &x_shape[2..])?;
    // output_padding takes away from the padding at the end. Where that is less, no step reaches
    // the last places, and none of the convolution back may read them.
    let mut cut = dy;
    for (i, &steps) in x_shape[2..].iter().enumerate() {
        let reached = window.reach(i, steps).saturating_sub(window.before[i]);
        let kept = usize::try_from(reached).unwrap_or(0).min(y_shape[i + 2]);
        window.after[i] = reached.saturating_sub(kept as i64);
        cut = cx.g().slice(cut, i + 2, (0, kept))?;
    }
    cx.add_grad(0, |g| convolve(g, (cut, w), &window, group, &x_shape))?;
    cx.add_grad(1, |g| weight_gradient(g, (cut, x), &window, group, &w_shape))?;
    cx.add_grad(2, |g| bias_gradient(g, dy))
}

//! `GridSample` by gathering the elements around each place of the grid.
//!
//! *neighbour*: an element that a place takes a share of: the nearest one, two along each axis, or
//! four.

use super::rewrite::input;
use crate::error::{Error, Result};
use crate::onnx::{Build, Node, ValueId};
use crate::tensor::DType;

/// The parameter of cubic interpolation.
const CUBIC: f64 = -0.75;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// An axis of what is sampled.
struct Axis {
    size: usize,
    aligned: bool,
    padding: Padding,
}

/// A neighbour along one axis, for each place: its index, its share, and whether it is inside.
struct Neighbour {
    index: ValueId,
    share: Option<ValueId>,
    inside: Option<ValueId>,
}

pub(super) fn sample(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let (x, grid) = (input(node, 0)?, input(node, 1)?);
    let (shape, places) = (g.shape(x)?, g.shape(grid)?);
    let k = shape.len().saturating_sub(2);
    if k == 0 || places.len() != k + 2 || places[k + 1] != k || places[0] != shape[0] {
        return Err(Error::shape(format!("a grid of {places:?} over {shape:?}")));
    }
    let mode = node.string("mode").unwrap_or("linear");
    let padding = match node.string("padding_mode").unwrap_or("zeros") {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(Error::data(format!("padding_mode '{other}'"))),
    };
    let (batch, channels) = (shape[0], shape[1]);
    let n: usize = places[1..=k].iter().product();
    let grid = g.reshape(grid, &[batch, n, k])?;
    let coordinates = g.split(grid, 2, &vec![1; k])?;
    // The grid's last axis counts from x's last one.
    let mut sides = Vec::new();
    for (i, &size) in shape[2..].iter().enumerate() {
        let axis = Axis { size, aligned: node.int("align_corners") == Some(1), padding };
        let place = g.reshape(coordinates[k - 1 - i], &[batch, 1, n])?;
        let place = axis.place(g, place)?;
        sides.push(match mode {
            "nearest" => vec![axis.nearest(g, place)?],
            "linear" | "bilinear" => axis.around(g, place, &[0, 1])?,
            "cubic" | "bicubic" => axis.around(g, place, &[-1, 0, 1, 2])?,
            other => return Err(Error::data(format!("mode '{other}'"))),
        });
    }
    let flat = g.reshape(x, &[batch, channels, shape[2..].iter().product()])?;
    let mut terms = Vec::new();
    let count: usize = sides.iter().map(Vec::len).product();
    for mut which in 0..count {
        let (mut index, mut shares) = (None, Vec::new());
        for (side, &size) in sides.iter().zip(&shape[2..]) {
            let neighbour = &side[which % side.len()];
            which /= side.len();
            index = Some(match index {
                None => neighbour.index,
                Some(index) => {
                    let rows = g.scale(index, size as f64)?;
                    g.add(rows, neighbour.index)?
                }
            });
            shares.extend(neighbour.share.into_iter().chain(neighbour.inside));
        }
        let index = index.ok_or_else(|| Error::internal("a grid without axes"))?;
        let index = g.expand(index, &[batch, channels, n])?;
        let mut term = g.gather_elements(flat, index, 2)?;
        for share in shares {
            term = g.mul(term, share)?;
        }
        terms.push(term);
    }
    let y = g.sum(&terms)?;
    let shape = [&[batch, channels], &places[1..=k]].concat();
    Ok(Some(vec![g.reshape(y, &shape)?]))
}

impl Axis {
    /// The first and last place that is not reflected.
    fn bounds(&self) -> (f64, f64) {
        let last = self.size as f64 - 1.0;
        if self.aligned { (0.0, last) } else { (-0.5, last + 0.5) }
    }

    /// Coordinates -1 to 1 as places among the elements, or beyond.
    fn place(&self, g: &mut Build, x: ValueId) -> Result<ValueId> {
        let size = self.size as f64;
        let from_zero = g.shift(x, 1.0)?;
        let place = if self.aligned {
            g.scale(from_zero, (size - 1.0) / 2.0)?
        } else {
            let wide = g.scale(from_zero, size / 2.0)?;
            g.shift(wide, -0.5)?
        };
        match self.padding {
            Padding::Zeros | Padding::Border => Ok(place),
            Padding::Reflection => self.reflect(g, place),
        }
    }

    /// A triangle wave between the bounds.
    fn reflect(&self, g: &mut Build, x: ValueId) -> Result<ValueId> {
        let (low, high) = self.bounds();
        let range = high - low;
        if range == 0.0 {
            return g.zeros_like(x);
        }
        let from_low = g.shift(x, -low)?;
        let turns = g.scale(from_low, 0.5 / range)?;
        let turns = g.unary("Floor", turns)?;
        let turns = g.scale(turns, 2.0 * range)?;
        let within = g.sub(from_low, turns)?;
        let from_middle = g.shift(within, -range)?;
        let away = g.unary("Abs", from_middle)?;
        g.from_number(low + range, away)
    }

    /// An index as floats, made one of an element.
    fn neighbour(&self, g: &mut Build, at: ValueId, share: Option<ValueId>) -> Result<Neighbour> {
        let last = self.size as f64 - 1.0;
        let (mut at, mut inside) = (at, None);
        match self.padding {
            Padding::Zeros => {
                let dtype = g.dtype(at)?;
                let low = g.compare_number("GreaterOrEqual", at, 0.0)?;
                let high = g.compare_number("LessOrEqual", at, last)?;
                let shape = g.shape(at)?;
                let both = g.emit("And", &[low, high], (DType::Bool, &shape), []);
                inside = Some(g.cast(both, dtype)?);
            }
            Padding::Border => {}
            Padding::Reflection => at = self.reflect(g, at)?,
        }
        let at = clip(g, at, 0.0, last)?;
        let at = g.unary("Round", at)?;
        Ok(Neighbour { index: g.cast(at, DType::I64)?, share, inside })
    }

    fn nearest(&self, g: &mut Build, place: ValueId) -> Result<Neighbour> {
        let at = g.unary("Round", place)?;
        self.neighbour(g, at, None)
    }

    /// The elements at these distances from the one before the place, with their shares.
    fn around(&self, g: &mut Build, place: ValueId, offsets: &[i64]) -> Result<Vec<Neighbour>> {
        let before = g.unary("Floor", place)?;
        let part = g.sub(place, before)?;
        let mut found = Vec::new();
        for &offset in offsets {
            let at = g.shift(before, offset as f64)?;
            let share = match (offsets.len(), offset) {
                (2, 0) => g.from_number(1.0, part)?,
                (2, _) => part,
                _ => {
                    let away = g.shift(part, -offset as f64)?;
                    let away = if offset > 0 { g.neg(away)? } else { away };
                    cubic(g, away, (0..=1).contains(&offset))?
                }
            };
            found.push(self.neighbour(g, at, Some(share))?);
        }
        Ok(found)
    }
}

/// The cubic kernel at distance d: (A + 2)d³ - (A + 3)d² + 1 near, A d³ - 5A d² + 8A d - 4A far.
fn cubic(g: &mut Build, d: ValueId, near: bool) -> Result<ValueId> {
    let a = CUBIC;
    let factors =
        if near { [a + 2.0, -(a + 3.0), 0.0, 1.0] } else { [a, -5.0 * a, 8.0 * a, -4.0 * a] };
    let mut y = g.scale(d, factors[0])?;
    for (i, factor) in factors[1..].iter().enumerate() {
        y = g.shift(y, *factor)?;
        if i < 2 {
            y = g.mul(y, d)?;
        }
    }
    Ok(y)
}

fn clip(g: &mut Build, x: ValueId, low: f64, high: f64) -> Result<ValueId> {
    let (low, high) = (g.like(x, low)?, g.like(x, high)?);
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    Ok(g.emit("Clip", &[x, low, high], ty, []))
}

//! `Resize` to the nearest place, where a position falls on the border between two places. There
//! rounding errors decide, and runtimes compute positions in different ways: a forward pass could
//! take another element than its gradient.

use crate::error::Result;
use crate::onnx::build::{check_constant, positive_axis};
use crate::onnx::{Attribute, Graph, Node, NodeId, TensorData};
use crate::tensor::element_count;

/// Distance to a border, relative to the axis, within which rounding errors decide. Positions in
/// f32 are off by some 1e-7 of the axis.
const NEAR: f64 = 1e-5;
/// Distance to a tie, relative to the position, that rounding the scale to f32 makes.
const TIE: f64 = 4e-7;

/// Rewrites a `Resize` to a `Gather` along each axis if a position is near a border. Ties are those
/// of exact arithmetic, and of a scale as it was before it was rounded to f32.
pub(super) fn gather_nearest(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let (Some(x), Some(axes)) = (node.input(0), axes(graph, node)?) else { return Ok(false) };
    if !axes.iter().any(Axis::is_uncertain) {
        return Ok(false);
    }
    let mut x = x;
    for axis in &axes[1..] {
        let at = graph.add_initializer("", TensorData::ints(&axis.places()?))?;
        x = graph.op("Gather", &[x, at], [("axis", Attribute::Int(axis.axis as i64))]);
    }
    let at = graph.add_initializer("", TensorData::ints(&axes[0].places()?))?;
    let node = graph.node_mut(id);
    (node.op, node.inputs) = ("Gather".to_owned(), vec![Some(x), Some(at)]);
    node.attributes.clear();
    node.attributes.insert("axis".to_owned(), Attribute::Int(axes[0].axis as i64));
    Ok(true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

impl Rounding {
    fn is_to_nearest(self) -> bool {
        matches!(self, Self::PreferFloor | Self::PreferCeil)
    }
}

/// How one axis is resized.
struct Axis {
    axis: usize,
    from: usize,
    to: usize,
    /// The scale that was given; without one it is `to / from`.
    scale: Option<f32>,
    position: String,
    rounding: Rounding,
}

/// Position in the input of element `i` of an axis that is resized by a scale, by the standard's
/// formulas in f32, as runtimes compute them; `None` for another `coordinate_transformation_mode`.
pub fn resized_position(
    mode: &str,
    i: usize,
    (from, to): (usize, usize),
    scale: f32,
) -> Option<f32> {
    let (i, from, to) = (i as f32, from as f32, to as f32);
    let half_pixel = (i + 0.5) / scale - 0.5;
    Some(match mode {
        "half_pixel" => half_pixel,
        "pytorch_half_pixel" if to > 1.0 => half_pixel,
        "asymmetric" => i / scale,
        "align_corners" if to > 1.0 => i * (from - 1.0) / (to - 1.0),
        "pytorch_half_pixel" | "align_corners" => 0.0,
        "half_pixel_symmetric" => {
            // The part of the output's real length that the output has.
            let part = to / (scale * from);
            from / 2.0 * (1.0 - part) + (i + 0.5) / scale - 0.5
        }
        _ => return None,
    })
}

impl Axis {
    /// Position of output element `i` in the input.
    fn source(&self, i: usize) -> f64 {
        let mode = self.position.as_str();
        if let Some(scale) = self.scale {
            let x = resized_position(mode, i, (self.from, self.to), scale);
            return x.map_or(0.0, f64::from);
        }
        // Of whole numbers one division is exact where its result lies on a border.
        let (i, from, to) = (i as f64, self.from as f64, self.to as f64);
        match mode {
            "asymmetric" => i * from / to,
            "align_corners" if to > 1.0 => i * (from - 1.0) / (to - 1.0),
            "align_corners" => 0.0,
            "pytorch_half_pixel" if to == 1.0 => 0.0,
            _ => ((2.0 * i + 1.0) * from - to) / (2.0 * to),
        }
    }

    /// The border between two places that is nearest to x.
    fn border(&self, x: f64) -> f64 {
        if self.rounding.is_to_nearest() { (x - 0.5).round() + 0.5 } else { x.round() }
    }

    fn place(&self, i: usize) -> i64 {
        let (mut x, border) = (self.source(i), self.border(self.source(i)));
        // A tie but for the rounding of the scale.
        let tie = self.scale.is_some() && self.rounding.is_to_nearest();
        if tie && (x - border).abs() <= TIE * (x.abs() + 1.0) {
            x = border;
        }
        let nearest = match self.rounding {
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
            Rounding::PreferFloor => (x - 0.5).ceil(),
        };
        nearest.clamp(0.0, self.from as f64 - 1.0) as i64
    }

    fn places(&self) -> Result<Vec<i64>> {
        check_constant(self.to)?;
        Ok((0..self.to).map(|i| self.place(i)).collect())
    }

    /// Whether rounding errors may decide on a place.
    fn is_uncertain(&self) -> bool {
        let near = NEAR * self.from.max(self.to) as f64;
        // Outside, all places are the same one.
        let inside = |x: f64| x > -1.0 && x < self.from as f64;
        let uncertain = |x: f64| (x - self.border(x)).abs() < near && inside(x);
        !self.is_exact() && (0..self.to).any(|i| uncertain(self.source(i)))
    }

    /// Whether no computation rounds: with a power of two as the scale.
    fn is_exact(&self) -> bool {
        let ratio = self.scale.map_or(self.to as f64 / self.from as f64, f64::from);
        let symmetric = self.position == "half_pixel_symmetric" && self.scale.is_some();
        ratio.log2().fract() == 0.0 && self.position != "align_corners" && !symmetric
    }
}

/// The axes that change; `None` for a node that is not resized to the nearest place, or about which
/// too little is known.
fn axes(graph: &Graph, node: &Node) -> Result<Option<Vec<Axis>>> {
    let shape = |v| graph.value(v).ty.static_shape();
    let (Some(from), Some(to)) = (node.input(0).and_then(shape), node.output(0).and_then(shape))
    else {
        return Ok(None);
    };
    let position = node.string("coordinate_transformation_mode").unwrap_or("half_pixel");
    let known = resized_position(position, 0, (1, 1), 1.0).is_some();
    let Some(rounding) = rounding(node).filter(|_| known) else { return Ok(None) };
    let stretches = node.string("keep_aspect_ratio_policy").is_none_or(|p| p == "stretch");
    let nearest = node.string("mode").is_none_or(|mode| mode == "nearest");
    let empty = from.contains(&0) || to.contains(&0) || from.len() != to.len();
    if !stretches || !nearest || empty || element_count(&to).is_err() {
        return Ok(None);
    }
    let own = match node.ints("axes") {
        Some(axes) => axes.iter().map(|&a| positive_axis(a, from.len())).collect::<Result<_>>()?,
        None => (0..from.len()).collect::<Vec<_>>(),
    };
    let given = node.input(2).filter(|&v| shape(v).is_none_or(|s| s != [0]));
    let scales = match given.map(|v| graph.constant(v)) {
        None => None,
        Some(Some(data)) => Some(data.to_f64s()?),
        Some(None) => return Ok(None),
    };
    let mut axes = Vec::new();
    for (k, axis) in own.into_iter().enumerate() {
        let scale = scales.as_ref().and_then(|s| s.get(k)).map(|&s| s as f32);
        let (from, to) = (from[axis], to[axis]);
        if from != to || scale.is_some_and(|s| s != 1.0) {
            axes.push(Axis { axis, from, to, scale, position: position.to_owned(), rounding });
        }
    }
    Ok(Some(axes))
}

fn rounding(node: &Node) -> Option<Rounding> {
    Some(match node.string("nearest_mode").unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueType;
    use crate::tensor::DType;

    /// `x` of that length resized by sizes, or by a scale.
    fn resized(from: usize, to: usize, scale: Option<f32>, mode: [&str; 2]) -> Graph {
        let mut g = Graph::new("g", 19);
        let x = g.add_input("x", ValueType::known(DType::F32, &[1, from])).unwrap();
        let factor = match scale {
            Some(scale) => TensorData::from_slice(&[2], &[1.0, scale]).unwrap(),
            None => TensorData::ints(&[1, to as i64]),
        };
        let by = g.add_initializer("by", factor).unwrap();
        let inputs = if scale.is_some() { vec![x, by] } else { vec![x, by, by] };
        let text = |value: &str| Attribute::String(value.to_owned());
        let modes =
            [("coordinate_transformation_mode", text(mode[0])), ("nearest_mode", text(mode[1]))];
        let y = g.op("Resize", &inputs, modes);
        let id = g.node_ids().next().unwrap();
        let node = g.node_mut(id);
        node.inputs.insert(1, None);
        if scale.is_none() {
            node.inputs[2] = None;
        }
        g.set_type(y, ValueType::known(DType::F32, &[1, to]));
        g.add_output(y);
        g
    }

    fn places(from: usize, to: usize, scale: Option<f32>, mode: [&str; 2]) -> Option<Vec<i64>> {
        let mut g = resized(from, to, scale, mode);
        let id = g.node_ids().next().unwrap();
        if !gather_nearest(&mut g, id).unwrap() {
            assert_eq!(g.node(id).op, "Resize");
            return None;
        }
        let node = g.node(id);
        assert_eq!((node.op.as_str(), node.int("axis")), ("Gather", Some(1)));
        Some(g.constant(node.input(1).unwrap()).unwrap().to_i64s().unwrap())
    }

    #[test]
    fn ties_are_those_of_exact_arithmetic() {
        let mode = |rounding| ["half_pixel", rounding];
        let up = Some(vec![1, 5, 8, 11, 15, 18]);
        let down = Some(vec![1, 4, 8, 11, 14, 18]);
        assert_eq!(places(20, 6, None, mode("round_prefer_ceil")), up);
        assert_eq!(places(20, 6, None, mode("round_prefer_floor")), down);
        // 0.3 has no f32.
        assert_eq!(places(20, 6, Some(0.3), mode("round_prefer_ceil")), up);
        assert_eq!(places(20, 6, Some(0.3), mode("round_prefer_floor")), down);
        let thirds = places(3, 9, None, ["asymmetric", "floor"]);
        assert_eq!(thirds, Some(vec![0, 0, 0, 1, 1, 1, 2, 2, 2]));
        let symmetric = places(9, 3, Some(0.4), ["half_pixel_symmetric", "round_prefer_floor"]);
        assert_eq!(symmetric, Some(vec![1, 4, 6]));
    }

    #[test]
    fn what_no_rounding_decides_stays() {
        assert_eq!(places(4, 8, None, ["asymmetric", "floor"]), None);
        assert_eq!(places(4, 8, Some(2.0), ["half_pixel", "round_prefer_floor"]), None);
        assert_eq!(places(5, 8, None, ["half_pixel", "floor"]), None);
        assert_eq!(places(20, 6, None, ["tf_crop_and_resize", "floor"]), None);
    }
}

//! Convolutions, pools, resizing and sampling.

use super::super::case::{Case, Random, case};
use super::Draw;

pub const DRAWS: &[(&[&str], Draw)] = &[
    (&["Conv", "ConvTranspose"], conv),
    (&["AveragePool", "MaxPool", "LpPool"], pool),
    (&["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], |op, r| {
        let case = case(op).either(0.1, 9.0).x(&[&[2, 2][..], &r.shape((1, 3))].concat());
        if op == "GlobalLpPool" { case.either(0.4, 1.6).int("p", r.between(1, 3)) } else { case }
    }),
    (&["Resize"], resize),
    (&["GridSample"], sample),
];

fn list(n: usize, r: &mut Random, (low, high): (i64, i64)) -> Vec<i64> {
    (0..n).map(|_| r.between(low, high)).collect()
}

fn conv(op: &'static str, r: &mut Random) -> Case {
    let k = 1 + r.below(2);
    let (group, each, made) = (1 + r.below(2), 1 + r.below(2), 1 + r.below(2));
    let kernel: Vec<usize> = (0..k).map(|_| 1 + r.below(3)).collect();
    let size: Vec<usize> = (0..k).map(|_| 5 + r.below(3)).collect();
    let x = [&[1 + r.below(2), group * each][..], &size].concat();
    let w = if op == "Conv" { [group * made, each] } else { [group * each, made] };
    let mut case = case(op).x(&x).x(&[&w[..], &kernel].concat()).loose(3.0);
    if r.flag(0.5) {
        case = case.x(&[group * made]);
    }
    if group > 1 {
        case = case.int("group", group as i64);
    }
    let strides = list(k, r, (1, 3));
    case = case.list("strides", &strides);
    let same = r.flag(0.2);
    if same {
        return case.text("auto_pad", r.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]));
    }
    if r.flag(0.5) {
        case = case.list("dilations", &list(k, r, (1, 2)));
    }
    if r.flag(0.6) {
        case = case.list("pads", &list(2 * k, r, (0, 1)));
    }
    if op == "ConvTranspose" && r.flag(0.5) {
        let more: Vec<i64> = strides.iter().map(|&s| r.between(0, s - 1)).collect();
        case = case.list("output_padding", &more);
    }
    case
}

fn pool(op: &'static str, r: &mut Random) -> Case {
    let k = 1 + r.below(2);
    let kernel = list(k, r, (1, 3));
    let size: Vec<usize> = (0..k).map(|_| 5 + r.below(4)).collect();
    let mut case = case(op).x(&[&[1, 2][..], &size].concat()).list("kernel_shape", &kernel);
    case = if op == "LpPool" { case.int("p", r.between(1, 3)) } else { case.either(0.1, 9.0) };
    case = case.opset(19).list("strides", &list(k, r, (1, 3)));
    if r.flag(0.2) {
        return case.text("auto_pad", r.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]));
    }
    if r.flag(0.6) {
        let pads: Vec<i64> =
            kernel.iter().chain(&kernel).map(|&n| r.between(0, (n - 1).min(1))).collect();
        case = case.list("pads", &pads);
    }
    if r.flag(0.3) {
        case = case.list("dilations", &list(k, r, (1, 2)));
    }
    if r.flag(0.3) {
        case = case.int("ceil_mode", 1);
    }
    if op == "AveragePool" && r.flag(0.5) {
        case = case.int("count_include_pad", 1);
    }
    case.loose(if op == "LpPool" { 5.0 } else { 1.0 })
}

fn resize(op: &'static str, r: &mut Random) -> Case {
    let k = 1 + r.below(2);
    let mut mode = r.pick(&["nearest", "linear", "cubic"]);
    // The runtime knows cubic in two dimensions alone.
    if mode == "cubic" && k != 2 {
        mode = "linear";
    }
    let size: Vec<usize> = (0..k).map(|_| 2 + r.below(5)).collect();
    let wanted: Vec<i64> = [1, 2].into_iter().chain(list(k, r, (1, 8))).collect();
    let positions =
        ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"];
    let case = case(op).opset(19).text("mode", mode).x(&[&[1, 2][..], &size].concat());
    let mut case = case.text("coordinate_transformation_mode", r.pick(&positions)).loose(20.0);
    if mode == "nearest" {
        let modes = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];
        case = case.text("nearest_mode", r.pick(&modes));
    }
    if mode == "cubic" {
        case = case.float("cubic_coeff_a", r.pick(&[-0.5, -0.75]));
        case = case.int("exclude_outside", r.between(0, 1));
    }
    case.none().none().ints(&wanted)
}

fn sample(op: &'static str, r: &mut Random) -> Case {
    let k = 2 + r.below(2);
    let mode =
        r.pick(if k == 2 { &["linear", "nearest", "cubic"][..] } else { &["linear", "nearest"] });
    let case = case(op).opset(20).text("mode", mode).int("align_corners", r.between(0, 1));
    let case = case.text("padding_mode", r.pick(&["zeros", "border", "reflection"]));
    let (n, sizes, places) = (1 + r.below(2), r.shape((k, k)), r.shape((k, k)));
    let sizes: Vec<usize> = sizes.iter().map(|d| d + 1).collect();
    case.x(&[&[n, 2][..], &sizes].concat()).x(&[&[n][..], &places, &[k]].concat()).loose(3.0)
}

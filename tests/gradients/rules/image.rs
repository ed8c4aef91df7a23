//! Cases of what images and sound need: sums of products, resizing, pools and convolutions in
//! their rarer forms, rare normalisations.

use super::case::{Case, case};

/// Operators with a rule of their own.
pub fn cases() -> Vec<Case> {
    [einsum(), resize(), resize_forms(), pools(), convolutions(), padding()].concat()
}

/// Operators that are rewritten.
pub fn rewritten() -> Vec<Case> {
    let lrn = |size: i64| case("LRN").int("size", size).float("alpha", 0.5);
    let mvn = || case("MeanVarianceNormalization").x(&[2, 3, 4, 2]);
    let cases = vec![
        lrn(3).x(&[2, 5, 3, 2]),
        lrn(5).float("beta", 0.6).float("bias", 1.5).x(&[1, 6, 2, 2]),
        lrn(9).x(&[1, 3, 2, 2]),
        mvn(),
        mvn().list("axes", &[1, -1]),
        case("MeanVarianceNormalization").list("axes", &[0]).x(&[5, 2]),
    ];
    cases.into_iter().map(Case::rewritten).collect()
}

fn einsum() -> Vec<Case> {
    let sum = |text: &str| case("Einsum").text("equation", text);
    vec![
        sum("bij,bjk->bik").x(&[2, 3, 4]).x(&[2, 4, 5]),
        sum("bhid,bhjd->bhij").x(&[2, 2, 3, 4]).x(&[2, 2, 5, 4]),
        sum("ij,jk").x(&[3, 4]).x(&[4, 2]),
        sum("ij,ij->ij").x(&[3, 4]).again(0),
        sum("ba , bc -> ac").x(&[3, 4]).x(&[3, 2]),
        sum("i,j->ij").x(&[3]).x(&[4]),
        sum("i,i->").x(&[3]).x(&[3]),
        sum("ij->").x(&[3, 4]),
        sum("ij->j").x(&[3, 4]),
        sum("ijk->kij").x(&[2, 3, 4]),
        sum("ijk,kl->il").x(&[2, 3, 4]).x(&[4, 5]),
        sum("...ij,...jk->...ik").x(&[2, 3, 4]).x(&[2, 4, 5]),
        sum("...ij,jk->...ik").x(&[2, 2, 3, 4]).x(&[4, 5]),
        sum("...ij,...jk->...ik").x(&[1, 3, 4]).x(&[5, 4, 2]),
        sum("...i->...").x(&[2, 3, 4]),
        sum("ij,jk,kl->il").x(&[2, 3]).x(&[3, 4]).x(&[4, 2]),
        sum("a,ab,b->").x(&[3]).x(&[3, 2]).x(&[2]),
        sum("ii->i").x(&[3, 3]),
        sum("ii->").x(&[3, 3]),
        sum("iij,j->i").x(&[3, 3, 2]).x(&[2]),
        sum("ij,jk->ik").x(&[1, 1]).x(&[1, 1]),
    ]
}

fn resize() -> Vec<Case> {
    let sized = |mode: &str, x: &[usize], y: &[i64]| {
        case("Resize").text("mode", mode).x(x).none().none().ints(y)
    };
    let mut cases = Vec::new();
    for position in
        ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    {
        for mode in ["nearest", "linear", "cubic"] {
            for size in [[1, 2, 7, 5], [1, 2, 3, 2], [1, 2, 4, 9]] {
                let case = sized(mode, &[1, 2, 4, 5], &size).opset(19);
                cases.push(case.text("coordinate_transformation_mode", position));
            }
        }
    }
    for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
        for size in [[1, 1, 6, 7], [1, 1, 2, 3]] {
            cases.push(sized("nearest", &[1, 1, 4, 5], &size).text("nearest_mode", rounding));
        }
    }
    // Places that fall half-way between two, or on one, but for rounding.
    for (from, to) in [(20, 6), (9, 6), (14, 10), (7, 21), (15, 25)] {
        for position in ["half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"] {
            for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
                let case = sized("nearest", &[1, from], &[1, to]).opset(19);
                let case = case.text("coordinate_transformation_mode", position);
                cases.push(case.text("nearest_mode", rounding));
            }
        }
    }
    cases.push(sized("linear", &[2, 3, 5], &[2, 3, 8]));
    cases.push(sized("linear", &[1, 1, 3, 4, 2], &[1, 1, 5, 2, 4]));
    cases
}

fn resize_forms() -> Vec<Case> {
    let scaled = |mode: &str, scales: &[f32]| {
        case("Resize").text("mode", mode).x(&[1, 2, 4, 5]).none().singles(scales)
    };
    let part = |sizes: &[i64]| {
        let op = case("Resize").opset(18).text("mode", "linear").list("axes", &[2, 3]);
        op.x(&[1, 2, 4, 6]).none().none().ints(sizes)
    };
    let cubic = || scaled("cubic", &[1.0, 1.0, 1.5, 2.0]);
    vec![
        scaled("nearest", &[1.0, 1.0, 2.0, 2.0])
            .text("coordinate_transformation_mode", "asymmetric"),
        scaled("nearest", &[1.0, 1.0, 0.6, 1.7]),
        scaled("linear", &[1.0, 1.0, 2.3, 1.1]),
        scaled("linear", &[1.0, 1.0, 0.5, 1.0]),
        cubic().float("cubic_coeff_a", -0.5),
        cubic().int("exclude_outside", 1),
        part(&[6, 3]),
        // A place that falls half-way between two, as far as f32 goes.
        case("Resize")
            .opset(19)
            .text("coordinate_transformation_mode", "half_pixel_symmetric")
            .x(&[1, 1, 9])
            .none()
            .singles(&[1.0, 1.0, 0.4]),
        case("Resize")
            .opset(19)
            .text("coordinate_transformation_mode", "half_pixel_symmetric")
            .x(&[1, 1, 11])
            .none()
            .singles(&[1.0, 1.0, 2.6]),
        case("Resize").x(&[1, 20]).none().singles(&[1.0, 0.3]),
    ]
}

fn pools() -> Vec<Case> {
    let pool = || case("LpPool").x(&[2, 3, 6, 5]).list("kernel_shape", &[2, 3]);
    let wide = |op| case(op).x(&[2, 3, 6, 5]).list("kernel_shape", &[2, 3]).either(0.1, 9.0);
    vec![
        pool(),
        pool().int("p", 1).list("strides", &[2, 1]),
        pool().int("p", 3).list("strides", &[2, 2]).list("pads", &[1, 1, 0, 2]),
        pool().text("auto_pad", "SAME_UPPER").list("strides", &[2, 2]),
        case("LpPool").opset(18).x(&[1, 2, 7]).list("kernel_shape", &[3]).list("dilations", &[2]),
        case("GlobalLpPool").x(&[2, 3, 4, 5]),
        case("GlobalLpPool").int("p", 3).x(&[2, 3, 4]),
        wide("MaxPool").list("dilations", &[2, 1]).outputs(2, &[0]),
        wide("AveragePool").opset(19).list("dilations", &[2, 2]),
        wide("AveragePool")
            .int("ceil_mode", 1)
            .list("strides", &[3, 3])
            .list("pads", &[1, 1, 0, 0]),
        wide("AveragePool")
            .opset(19)
            .int("ceil_mode", 1)
            .int("count_include_pad", 1)
            .list("strides", &[3, 3])
            .list("pads", &[1, 1, 0, 0]),
        wide("MaxPool").int("ceil_mode", 1).list("strides", &[3, 3]).list("pads", &[1, 1, 0, 0]),
        wide("MaxPool").list("dilations", &[2, 2]).text("auto_pad", "SAME_UPPER"),
        wide("MaxPool")
            .list("dilations", &[2, 1])
            .text("auto_pad", "SAME_LOWER")
            .list("strides", &[2, 2]),
        wide("AveragePool").opset(19).list("dilations", &[2, 2]).text("auto_pad", "SAME_LOWER"),
        wide("AveragePool")
            .opset(19)
            .list("dilations", &[3, 2])
            .text("auto_pad", "SAME_UPPER")
            .list("strides", &[2, 1])
            .int("count_include_pad", 1),
        pool().opset(18).list("dilations", &[2, 2]).text("auto_pad", "SAME_UPPER"),
        case("AveragePool").x(&[1, 2, 5]).list("kernel_shape", &[2]),
        case("MaxPool").x(&[1, 1, 3, 4, 3]).list("kernel_shape", &[2, 2, 2]).either(0.1, 9.0),
    ]
}

/// A last step that ceil_mode puts wholly into the padding: the runtime's kernels leave it out,
/// its shapes do not.
pub fn refused() -> Vec<Case> {
    let wide = |op| case(op).x(&[2, 3, 6, 5]).list("kernel_shape", &[2, 3]).int("ceil_mode", 1);
    ["MaxPool", "AveragePool"]
        .map(|op| wide(op).list("strides", &[4, 4]).list("pads", &[1, 1, 1, 1]))
        .to_vec()
}

fn convolutions() -> Vec<Case> {
    let back = || case("ConvTranspose").x(&[2, 4, 3, 4]).x(&[4, 3, 3, 2]);
    vec![
        back().list("output_shape", &[6, 8]).list("strides", &[2, 2]),
        back().list("output_shape", &[5, 7]).list("strides", &[2, 2]),
        back()
            .list("output_shape", &[6, 8])
            .list("strides", &[2, 2])
            .list("output_padding", &[1, 1]),
        back().text("auto_pad", "SAME_UPPER").list("strides", &[2, 2]),
        back().text("auto_pad", "SAME_LOWER").list("strides", &[2, 1]),
        back().text("auto_pad", "VALID").list("strides", &[2, 3]),
        case("ConvTranspose").x(&[1, 2, 5]).x(&[2, 3, 4]).list("strides", &[3]),
        case("Conv").x(&[1, 2, 9]).x(&[4, 1, 3]).int("group", 2).list("dilations", &[3]),
        case("Conv").x(&[2, 2, 5]).x(&[4, 2, 8]).list("pads", &[3, 2]).list("strides", &[4]),
        case("Conv").x(&[1, 1, 1, 1]).x(&[1, 1, 1, 1]).x(&[1]),
    ]
}

fn padding() -> Vec<Case> {
    let pad = |mode: &str| case("Pad").text("mode", mode).x(&[3, 4]);
    vec![
        pad("reflect").ints(&[1, 2, 2, 3]),
        pad("edge").ints(&[1, 0, 3, 2]),
        pad("edge").ints(&[0, -1, 0, 2]),
        pad("wrap").opset(19).ints(&[1, 2, 0, 3]),
        case("ReverseSequence").x(&[4, 3]).ints(&[2, 4, 1]),
        case("ReverseSequence")
            .int("batch_axis", 0)
            .int("time_axis", 1)
            .x(&[2, 3, 2])
            .ints(&[3, 2]),
        pad("reflect").opset(18).ints(&[2, 1]).none().ints(&[-1]),
    ]
}

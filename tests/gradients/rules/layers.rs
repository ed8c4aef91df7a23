//! Cases of normalisation, dropout, convolution and pooling.

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(norms());
    cases.extend(convolutions());
    cases.extend(pools());
    cases.extend(fused());
    cases
}

fn norms() -> Vec<Case> {
    let batch = |op: Case, n: usize| op.x(&[n]).x(&[n]);
    let image = |op: &'static str| case(op).x(&[2, 4, 3]);
    let mut cases = vec![
        case("LayerNormalization").x(&[2, 3, 4]).x(&[4]).x(&[4]),
        case("LayerNormalization").x(&[2, 3, 4]).x(&[4]),
        case("LayerNormalization").int("axis", 1).x(&[2, 3, 4]).x(&[3, 4]).x(&[3, 4]),
        case("LayerNormalization").float("epsilon", 0.1).x(&[1, 5]).x(&[5]).x(&[5]),
        case("LayerNormalization").narrow().x(&[2, 4]).x(&[4]).x(&[4]).outputs(3, &[0, 1, 2]),
        case("LayerNormalization").narrow().x(&[2, 4]).x(&[4]).x(&[4]).outputs(3, &[2]),
        case("LayerNormalization")
            .narrow()
            .int("axis", 1)
            .x(&[2, 3, 4])
            .x(&[3, 4])
            .outputs(2, &[1]),
        case("RMSNormalization").opset(23).x(&[2, 3, 4]).x(&[4]),
        case("RMSNormalization").opset(23).int("axis", -2).x(&[2, 3, 4]).x(&[3, 4]),
        batch(image("InstanceNormalization"), 4),
        batch(image("GroupNormalization").narrow().opset(21).int("num_groups", 2), 4),
        batch(image("GroupNormalization").narrow().opset(21).int("num_groups", 4), 4),
        case("BatchNormalization")
            .x(&[3, 2, 4])
            .x(&[2])
            .x(&[2])
            .fixed(&[2], &[0.2, -0.1])
            .fixed(&[2], &[0.9, 1.4]),
        case("BatchNormalization")
            .values(&[2, 2], &[0.3, -0.6, 1.2, 0.8])
            .x(&[2])
            .x(&[2])
            .values(&[2], &[0.2, -0.1])
            .values(&[2], &[0.9, 1.4]),
        case("BatchNormalization")
            .int("training_mode", 1)
            .x(&[3, 2, 4])
            .x(&[2])
            .x(&[2])
            .fixed(&[2], &[0.0, 0.0])
            .fixed(&[2], &[1.0, 1.0])
            .outputs(3, &[0]),
        case("Dropout").x(&[2, 3]),
        case("Dropout").x(&[2, 3]).fixed(&[], &[0.4]).bools(&[], &[0]),
        case("Dropout").x(&[2, 3]).fixed(&[], &[0.0]).bools(&[], &[1]),
    ];
    for p in [1, 2] {
        cases.push(case("LpNormalization").int("p", p).x(&[2, 3]));
        cases.push(case("LpNormalization").int("p", p).int("axis", 0).x(&[2, 3]));
    }
    cases
}

fn convolutions() -> Vec<Case> {
    let conv = || case("Conv").x(&[2, 4, 6, 5]);
    let back = || case("ConvTranspose").x(&[2, 4, 3, 4]);
    vec![
        conv().x(&[3, 4, 3, 2]).x(&[3]),
        conv().x(&[3, 4, 3, 2]).list("strides", &[2, 3]),
        conv().x(&[3, 4, 2, 2]).list("strides", &[2, 2]).list("pads", &[1, 0, 0, 1]),
        conv().x(&[3, 4, 3, 2]).list("dilations", &[2, 1]).list("pads", &[1, 2, 2, 1]),
        conv().x(&[6, 2, 3, 3]).int("group", 2).list("strides", &[2, 1]),
        conv().x(&[4, 1, 3, 3]).int("group", 4).x(&[4]),
        conv().x(&[3, 4, 3, 3]).text("auto_pad", "SAME_UPPER").list("strides", &[2, 2]),
        conv().x(&[3, 4, 3, 3]).text("auto_pad", "SAME_LOWER"),
        conv().x(&[3, 4, 2, 2]).text("auto_pad", "VALID"),
        conv().x(&[3, 4, 1, 1]).list("strides", &[3, 3]),
        case("Conv").x(&[2, 3, 8]).x(&[4, 3, 3]).list("strides", &[2]),
        case("Conv").x(&[1, 2, 3, 4, 3]).x(&[2, 2, 2, 2, 2]).x(&[2]),
        back().x(&[4, 3, 2, 3]).x(&[3]),
        back().x(&[4, 3, 2, 3]).list("strides", &[2, 2]).list("pads", &[1, 0, 0, 1]),
        back().x(&[4, 2, 2, 2]).int("group", 2).list("strides", &[2, 1]),
        back().x(&[4, 3, 3, 3]).list("strides", &[2, 2]).list("output_padding", &[1, 1]),
        back().x(&[4, 3, 2, 2]).list("dilations", &[2, 2]),
        back()
            .x(&[4, 3, 3, 3])
            .list("strides", &[2, 3])
            .list("pads", &[1, 1, 1, 1])
            .list("output_padding", &[1, 2]),
        case("ConvTranspose")
            .x(&[1, 1, 4])
            .x(&[1, 1, 3])
            .list("strides", &[2])
            .list("pads", &[1, 1])
            .list("output_padding", &[1]),
    ]
}

fn pools() -> Vec<Case> {
    let pool = |op| case(op).x(&[2, 3, 6, 5]).list("kernel_shape", &[2, 3]);
    let mut cases = vec![
        case("GlobalAveragePool").x(&[2, 3, 4, 5]),
        case("GlobalMaxPool").x(&[2, 3, 4, 5]).either(0.1, 9.0),
    ];
    for op in ["AveragePool", "MaxPool"] {
        let spread = |c: Case| c.either(0.1, 9.0);
        cases.push(spread(pool(op)));
        cases.push(spread(pool(op).list("strides", &[2, 2])));
        cases.push(spread(pool(op).list("strides", &[2, 1]).list("pads", &[1, 1, 0, 2])));
        cases.push(spread(pool(op).text("auto_pad", "SAME_UPPER").list("strides", &[2, 2])));
        cases.push(spread(pool(op).int("ceil_mode", 1).list("strides", &[4, 4])));
    }
    let padded = pool("AveragePool").list("pads", &[1, 1, 1, 1]);
    cases.push(padded.int("count_include_pad", 1));
    cases
}

/// Attention without its inputs, which follow.
pub fn attention(ratio: f32) -> Case {
    let attention = case("FusedAttention").domain("mmopt").narrow().outputs(3, &[0]);
    attention.float("scale", 0.7).float("ratio", ratio).int("salt", 3).int("empty_is_zero", 0)
}

/// Operators with a fused form, in f32, where that form is used.
fn fused() -> Vec<Case> {
    let own = |op: &'static str| case(op).domain("mmopt").narrow();
    let rows = || own("CrossEntropy").int("ignore_index", -7).x(&[3, 5]).ints(&[4, -7, 0]);
    vec![
        own("Gelu").either(0.0, 4.0).x(&[2, 9]),
        own("GeluTanh").either(0.0, 4.0).x(&[2, 9]),
        own("Dropout").float("ratio", 0.4).int("salt", 3).x(&[4, 5]).ints(&[17]),
        attention(0.0)
            .x(&[2, 3, 2, 4])
            .x(&[2, 5, 2, 4])
            .x(&[2, 5, 2, 3])
            .singles(&[0.5])
            .ints(&[17]),
        attention(0.4)
            .x(&[2, 3, 2, 4])
            .x(&[2, 5, 2, 4])
            .x(&[2, 5, 2, 3])
            .singles(&[0.5])
            .ints(&[17]),
        rows().float("label_smoothing", 0.0).outputs(2, &[0]),
        rows().float("label_smoothing", 0.2).outputs(2, &[0]),
        case("Gelu").narrow().opset(20).x(&[2, 9]),
        case("Softmax").narrow().x(&[2, 3, 4]),
        case("Softmax").narrow().int("axis", 1).x(&[2, 3, 4]),
        case("LayerNormalization").narrow().x(&[2, 3, 4]).x(&[4]).x(&[4]),
        case("LayerNormalization").narrow().x(&[2, 3, 4]).x(&[4]),
        case("LayerNormalization").narrow().int("axis", 1).x(&[2, 3, 4]).x(&[3, 4]).x(&[3, 4]),
        case("LayerNormalization").narrow().x(&[2, 4]).fixed(&[4], &[1., 2., 3., 4.]).x(&[4]),
        case("Gather").narrow().x(&[5, 3]).ints_of(&[2, 2], &[4, 0, -1, 4]),
        case("Gather").narrow().x(&[5, 3]).ints(&[]),
        case("Gather").narrow().x(&[2, 5, 3]).int("axis", 1).ints(&[4, 0, 4]),
    ]
}

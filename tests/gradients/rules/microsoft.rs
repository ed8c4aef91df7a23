//! Cases of fused operators of the runtime's own domain: each rewrite gives what the runtime's
//! kernel gives, and is then differentiated.

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    let all = [pointwise(), products(), norms(), attention(), multi_head(), rotary()];
    all.concat().into_iter().map(Case::rewritten).collect()
}

fn fused(op: &'static str) -> Case {
    case(op).domain("com.microsoft")
}

fn pointwise() -> Vec<Case> {
    vec![
        fused("Gelu").x(&[2, 3]),
        fused("BiasGelu").x(&[2, 3, 4]).x(&[4]),
        fused("FastGelu").narrow().x(&[2, 3, 4]),
        fused("FastGelu").narrow().x(&[2, 3, 4]).x(&[4]),
        fused("QuickGelu").x(&[5]),
        fused("QuickGelu").float("alpha", 0.7).x(&[2, 2]),
    ]
}

fn products() -> Vec<Case> {
    let product = || fused("FusedMatMul").float("alpha", 0.5);
    let gemm = |activation: &str| {
        fused("FusedGemm").text("activation", activation).x(&[3, 4]).x(&[4, 5]).x(&[5])
    };
    vec![
        product().x(&[3, 4]).x(&[4, 5]),
        product().int("transA", 1).x(&[4, 3]).x(&[4, 5]),
        product().int("transB", 1).x(&[2, 3, 4]).x(&[2, 5, 4]),
        product().int("transA", 1).int("transB", 1).x(&[2, 4, 3]).x(&[2, 5, 4]),
        product().int("transBatchA", 1).x(&[3, 2, 4]).x(&[2, 4, 5]),
        product().int("transBatchA", 1).int("transA", 1).x(&[4, 2, 3]).x(&[2, 4, 5]),
        product().int("transBatchB", 1).int("transB", 1).x(&[2, 3, 4]).x(&[5, 2, 4]),
        gemm("Relu").float("alpha", 0.7).float("beta", 1.3),
        gemm("Tanh"),
        gemm("LeakyRelu").float("activation_alpha", 0.2),
        fused("FusedGemm")
            .text("activation", "Sigmoid")
            .int("transA", 1)
            .int("transB", 1)
            .x(&[4, 3])
            .x(&[5, 4]),
        fused("FusedConv").text("activation", "Tanh").x(&[1, 2, 5, 4]).x(&[3, 2, 2, 2]).x(&[3]),
        fused("FusedConv")
            .text("activation", "LeakyRelu")
            .floats("activation_params", &[0.3])
            .list("strides", &[2, 1])
            .x(&[1, 2, 5, 4])
            .x(&[3, 2, 2, 2])
            .x(&[3]),
        fused("FusedConv").x(&[1, 2, 5, 4]).x(&[3, 2, 2, 2]).x(&[3]).x(&[1, 3, 4, 3]),
    ]
}

fn norms() -> Vec<Case> {
    let skip = || fused("SkipLayerNormalization").x(&[2, 3, 4]).x(&[2, 3, 4]);
    let rms = || fused("SkipSimplifiedLayerNormalization").x(&[2, 3, 4]).x(&[2, 3, 4]);
    let ids = [1, 0, 3, 4, 2, 1];
    let embed = || fused("EmbedLayerNormalization").ints32_of(&[2, 3], &ids);
    vec![
        skip().x(&[4]),
        skip().x(&[4]).x(&[4]).x(&[4]),
        skip().float("epsilon", 0.1).x(&[4]).x(&[4]).x(&[4]).outputs(4, &[0, 3]),
        skip().x(&[4]).none().x(&[4]),
        fused("SkipLayerNormalization").x(&[2, 3, 4]).x(&[1, 3, 4]).x(&[4]).x(&[4]),
        rms().x(&[4]),
        rms().float("epsilon", 0.1).x(&[4]).x(&[4]).outputs(4, &[0, 3]),
        case("SimplifiedLayerNormalization").x(&[2, 3, 4]).x(&[4]),
        case("SimplifiedLayerNormalization").float("epsilon", 0.2).x(&[2, 3, 4]).x(&[4]),
        embed()
            .ints32_of(&[2, 3], &[0, 0, 1, 0, 1, 1])
            .x(&[5, 4])
            .x(&[6, 4])
            .x(&[2, 4])
            .x(&[4])
            .x(&[4])
            .outputs(2, &[0]),
        embed().none().x(&[5, 4]).x(&[6, 4]).none().x(&[4]).x(&[4]).outputs(2, &[0]),
        embed()
            .ints32_of(&[2, 3], &[0, 0, 1, 0, 1, 1])
            .x(&[5, 4])
            .x(&[6, 4])
            .x(&[2, 4])
            .x(&[4])
            .x(&[4])
            .ints32_of(&[2, 3], &[1, 1, 0, 1, 1, 1])
            .ints32_of(&[2, 3], &[0, 1, 2, 3, 4, 5])
            .float("epsilon", 0.01)
            .outputs(3, &[0, 1, 2]),
    ]
}

fn attention() -> Vec<Case> {
    let own = || fused("Attention").int("num_heads", 2).x(&[2, 3, 4]).x(&[4, 12]).x(&[12]);
    let flags = [1, 1, 0, 1, 0, 0];
    let each: Vec<i32> = (0..18).map(|i| i32::from(i % 4 != 1)).collect();
    vec![
        own(),
        own().int("unidirectional", 1),
        own().float("scale", 0.2),
        own().ints32_of(&[2, 3], &flags),
        own().ints32_of(&[2, 3], &flags).int("unidirectional", 1),
        own().ints32_of(&[2, 3, 3], &each),
        own().ints32_of(&[2], &[2, 3]),
        own().ints32_of(&[4], &[3, 2, 1, 0]),
        own().none().none().x(&[1, 2, 3, 3]),
        own().none().x(&[2, 2, 2, 1, 2]).int("unidirectional", 1).outputs(2, &[0, 1]),
        fused("Attention")
            .int("num_heads", 2)
            .list("qkv_hidden_sizes", &[4, 4, 6])
            .x(&[1, 3, 4])
            .x(&[4, 14])
            .x(&[14]),
    ]
}

fn multi_head() -> Vec<Case> {
    let own = || {
        let op = fused("MultiHeadAttention").int("num_heads", 2);
        op.x(&[2, 3, 4]).x(&[2, 5, 4]).x(&[2, 5, 6])
    };
    let flags = [1, 1, 0, 1, 0, 0, 1, 1, 1, 1];
    let packed = |op: &'static str| fused(op).int("num_heads", 4).int("kv_num_heads", 2);
    let group = || {
        let op = packed("GroupQueryAttention").x(&[2, 3, 64]).x(&[2, 3, 32]).x(&[2, 3, 32]);
        op.none().none().ints32_of(&[2], &[2, 2]).ints32_of(&[], &[3])
    };
    let angles: Vec<f64> = (0..32).map(|i| f64::from(i) * 0.1).collect();
    let cos: Vec<f64> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f64> = angles.iter().map(|a| a.sin()).collect();
    vec![
        own(),
        own().x(&[14]),
        own().float("scale", 0.3).none().ints32_of(&[2, 5], &flags),
        own().none().none().x(&[1, 2, 3, 5]),
        own().x(&[14]).ints32_of(&[2, 5], &flags).x(&[2, 2, 3, 5]),
        fused("MultiHeadAttention")
            .int("num_heads", 2)
            .x(&[2, 3, 4])
            .x(&[2, 2, 5, 2])
            .x(&[2, 2, 5, 2]),
        fused("MultiHeadAttention")
            .int("num_heads", 2)
            .int("unidirectional", 1)
            .x(&[2, 3, 4])
            .x(&[2, 3, 4])
            .x(&[2, 3, 4]),
        group().outputs(3, &[0]),
        group().float("scale", 0.4).outputs(3, &[0]),
        group().fixed(&[4, 8], &cos).fixed(&[4, 8], &sin).int("do_rotary", 1).outputs(3, &[0]),
    ]
}

fn rotary() -> Vec<Case> {
    let angles: Vec<f64> = (0..12).map(|i| f64::from(i) * 0.3).collect();
    let cos: Vec<f64> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f64> = angles.iter().map(|a| a.sin()).collect();
    let own = |shape: &[usize], at: &[i64], dims: &[usize]| {
        let op = fused("RotaryEmbedding").x(shape).ints_of(dims, at);
        op.fixed(&[6, 2], &cos).fixed(&[6, 2], &sin)
    };
    vec![
        own(&[2, 2, 3, 4], &[0, 1, 2, 3, 4, 5], &[2, 3]),
        own(&[2, 3, 8], &[0, 1, 2, 3, 4, 5], &[2, 3]),
        own(&[2, 3, 8], &[1], &[1]).int("interleaved", 1),
        own(&[2, 3, 12], &[1], &[1]).int("num_heads", 2).int("rotary_embedding_dim", 4),
    ]
}

//! Contrib operators: the fused operators of the domain `com.microsoft` that optimised files have,
//! in standard operators.

mod attention;
mod embed;
mod grouped;
mod norm;
mod pointwise;
mod product;

use super::rewrite::{Lowered, Rewrite};

const DOMAIN: &str = "com.microsoft";

/// Every rewrite.
pub(super) const REWRITES: &[Lowered] = &[
    fused(
        "Attention",
        attention::attention,
        &[
            "do_rotary",
            "mask_filter_value",
            "num_heads",
            "past_present_share_buffer",
            "qkv_hidden_sizes",
            "rotary_embedding_dim",
            "scale",
            "unidirectional",
        ],
    ),
    fused("BiasGelu", pointwise::gelu, &[]),
    fused("EmbedLayerNormalization", embed::embed, &["epsilon", "mask_index_type"]),
    fused("FastGelu", pointwise::fast_gelu, &[]),
    fused(
        "FusedConv",
        product::conv,
        &[
            "activation",
            "activation_params",
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "pads",
            "strides",
        ],
    ),
    fused(
        "FusedGemm",
        product::gemm,
        &[
            "activation",
            "activation_alpha",
            "activation_beta",
            "activation_gamma",
            "alpha",
            "beta",
            "transA",
            "transB",
        ],
    ),
    fused(
        "FusedMatMul",
        product::matmul,
        &["alpha", "transA", "transB", "transBatchA", "transBatchB"],
    ),
    fused("Gelu", pointwise::gelu, &[]),
    fused(
        "GroupQueryAttention",
        grouped::attention,
        &[
            "do_rotary",
            "kv_num_heads",
            "local_window_size",
            "num_heads",
            "qk_output",
            "rotary_interleaved",
            "scale",
            "smooth_softmax",
            "softcap",
        ],
    ),
    fused(
        "MultiHeadAttention",
        attention::multi_head,
        &["mask_filter_value", "num_heads", "scale", "unidirectional"],
    ),
    fused("QuickGelu", pointwise::quick_gelu, &["alpha"]),
    fused(
        "RotaryEmbedding",
        attention::rotary,
        &["interleaved", "is_packed_batching", "num_heads", "rotary_embedding_dim", "scale"],
    ),
    fused("SkipLayerNormalization", norm::skip_layer_norm, &["epsilon"]),
    fused("SkipSimplifiedLayerNormalization", norm::skip_rms_norm, &["epsilon"]),
    fused(
        "TransposeMatMul",
        product::matmul,
        &["alpha", "transA", "transB", "transBatchA", "transBatchB"],
    ),
    Lowered {
        op: "SimplifiedLayerNormalization",
        attributes: &["axis", "epsilon", "stash_type"],
        ..Lowered::by(norm::rms_norm)
    },
];

const fn fused(op: &'static str, rewrite: Rewrite, attributes: &'static [&'static str]) -> Lowered {
    Lowered { domain: DOMAIN, op, attributes, rewrite }
}

//! Contrib operators: the fused operators of the domain `com.microsoft` that optimised files have,
//! in standard operators.

mod attention;
mod embed;
mod grouped;
mod norm;
mod pointwise;
mod product;

use super::rewrite::Rewrite;

const DOMAIN: &str = "com.microsoft";

/// Domain, operator and rewrite.
pub(super) const REWRITES: &[(&str, &str, Rewrite)] = &[
    (DOMAIN, "Attention", attention::attention),
    (DOMAIN, "BiasGelu", pointwise::gelu),
    (DOMAIN, "EmbedLayerNormalization", embed::embed),
    (DOMAIN, "FastGelu", pointwise::fast_gelu),
    (DOMAIN, "FusedConv", product::conv),
    (DOMAIN, "FusedGemm", product::gemm),
    (DOMAIN, "FusedMatMul", product::matmul),
    (DOMAIN, "Gelu", pointwise::gelu),
    (DOMAIN, "GroupQueryAttention", grouped::attention),
    (DOMAIN, "MultiHeadAttention", attention::multi_head),
    (DOMAIN, "QuickGelu", pointwise::quick_gelu),
    (DOMAIN, "RotaryEmbedding", attention::rotary),
    (DOMAIN, "SkipLayerNormalization", norm::skip_layer_norm),
    (DOMAIN, "SkipSimplifiedLayerNormalization", norm::skip_rms_norm),
    (DOMAIN, "TransposeMatMul", product::matmul),
    ("", "SimplifiedLayerNormalization", norm::rms_norm),
];

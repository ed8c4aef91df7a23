//! The roles of a parameter, from the host, its published name, or its use in the graph.
//!
//! A linear weight is stored `[out, in]`, or `[in, out]` as in GPT-2 and most exported graphs. Its
//! logical view is always `[out, in]`.

use crate::optim::plan::role::{Role, Stack, UseKind, WeightLayout, WeightOrBias};
use crate::optim::plan::spec::ParamSpec;
use crate::optim::plan::view::{View, matrix_shape};

/// One view of a parameter with its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// What it does.
    pub role: Role,
    /// Weight or bias.
    pub part: WeightOrBias,
    /// Which stack.
    pub stack: Stack,
    /// Block index, where the role has one.
    pub block: Option<usize>,
    /// The elements, logical shape `[out, in]` for linear weights.
    pub view: View,
}

/// What a name pattern stands for.
#[derive(Clone, Copy)]
enum NamedRole {
    One(Role),
    /// Query, key and value side by side.
    Qkv,
    /// Gate and up side by side.
    GateUp,
}

use NamedRole::{GateUp, One, Qkv};
use Role::*;

/// Ends of published names without `.weight` or `.bias`; `#` is a block index. `true` marks
/// weights stored `[in, out]`. The longest match wins.
const NAMES: &[(&str, NamedRole, bool)] = &[
    // BERT, RoBERTa, MPNet, ViT
    ("word_embeddings", One(TokenEmbedding), false),
    ("position_embeddings", One(PositionEmbedding), false),
    ("token_type_embeddings", One(TypeEmbedding), false),
    ("embeddings.LayerNorm", One(EmbeddingNorm), false),
    ("layer.#.attention.self.query", One(AttentionQuery), false),
    ("layer.#.attention.self.key", One(AttentionKey), false),
    ("layer.#.attention.self.value", One(AttentionValue), false),
    ("layer.#.attention.output.dense", One(AttentionOutput), false),
    ("layer.#.attention.output.LayerNorm", One(NormAfterAttention), false),
    ("layer.#.intermediate.dense", One(MlpUp), false),
    ("layer.#.output.dense", One(MlpDown), false),
    ("layer.#.output.LayerNorm", One(NormAfterMlp), false),
    ("pooler.dense", One(Pooler), false),
    ("layer.#.attention.attn.q", One(AttentionQuery), false),
    ("layer.#.attention.attn.k", One(AttentionKey), false),
    ("layer.#.attention.attn.v", One(AttentionValue), false),
    ("layer.#.attention.attn.o", One(AttentionOutput), false),
    ("layer.#.attention.LayerNorm", One(NormAfterAttention), false),
    ("relative_attention_bias", One(RelativePosition), false),
    ("layer.#.attention.attention.query", One(AttentionQuery), false),
    ("layer.#.attention.attention.key", One(AttentionKey), false),
    ("layer.#.attention.attention.value", One(AttentionValue), false),
    ("layer.#.layernorm_before", One(NormBeforeAttention), false),
    ("layer.#.layernorm_after", One(NormBeforeMlp), false),
    ("layers.#.attention.q_proj", One(AttentionQuery), false),
    ("layers.#.attention.k_proj", One(AttentionKey), false),
    ("layers.#.attention.v_proj", One(AttentionValue), false),
    ("layers.#.attention.o_proj", One(AttentionOutput), false),
    ("layers.#.layernorm_before", One(NormBeforeAttention), false),
    ("layers.#.layernorm_after", One(NormBeforeMlp), false),
    ("layers.#.mlp.fc1", One(MlpUp), false),
    ("layers.#.mlp.fc2", One(MlpDown), false),
    ("vit.layernorm", One(FinalNorm), false),
    ("patch_embeddings.projection", One(PatchEmbedding), false),
    ("cls_token", One(ClassToken), false),
    // ALBERT
    ("embedding_hidden_mapping_in", One(EmbeddingProjection), false),
    ("albert_layers.#.attention.query", One(AttentionQuery), false),
    ("albert_layers.#.attention.key", One(AttentionKey), false),
    ("albert_layers.#.attention.value", One(AttentionValue), false),
    ("albert_layers.#.attention.dense", One(AttentionOutput), false),
    ("albert_layers.#.attention.LayerNorm", One(NormAfterAttention), false),
    ("albert_layers.#.ffn", One(MlpUp), false),
    ("albert_layers.#.ffn_output", One(MlpDown), false),
    ("albert_layers.#.full_layer_layer_norm", One(NormAfterMlp), false),
    ("albert.pooler", One(Pooler), false),
    // DistilBERT
    ("layer.#.attention.q_lin", One(AttentionQuery), false),
    ("layer.#.attention.k_lin", One(AttentionKey), false),
    ("layer.#.attention.v_lin", One(AttentionValue), false),
    ("layer.#.attention.out_lin", One(AttentionOutput), false),
    ("layer.#.sa_layer_norm", One(NormAfterAttention), false),
    ("layer.#.ffn.lin1", One(MlpUp), false),
    ("layer.#.ffn.lin2", One(MlpDown), false),
    ("layer.#.output_layer_norm", One(NormAfterMlp), false),
    ("pre_classifier", One(HeadDense), false),
    ("vocab_transform", One(HeadDense), false),
    ("vocab_layer_norm", One(HeadNorm), false),
    ("vocab_projector", One(Head), false),
    // GPT-2
    ("wte", One(TokenEmbedding), false),
    ("wpe", One(PositionEmbedding), false),
    ("h.#.ln_1", One(NormBeforeAttention), false),
    ("h.#.attn.c_attn", Qkv, true),
    ("h.#.attn.c_proj", One(AttentionOutput), true),
    ("h.#.ln_2", One(NormBeforeMlp), false),
    ("h.#.mlp.c_fc", One(MlpUp), true),
    ("h.#.mlp.c_proj", One(MlpDown), true),
    ("ln_f", One(FinalNorm), false),
    // The first Qwen
    ("h.#.mlp.w1", One(MlpUp), false),
    ("h.#.mlp.w2", One(MlpGate), false),
    // Llama, Mistral, Qwen 2 and 3
    ("embed_tokens", One(TokenEmbedding), false),
    ("layers.#.input_layernorm", One(NormBeforeAttention), false),
    ("layers.#.self_attn.q_proj", One(AttentionQuery), false),
    ("layers.#.self_attn.k_proj", One(AttentionKey), false),
    ("layers.#.self_attn.v_proj", One(AttentionValue), false),
    ("layers.#.self_attn.q_norm", One(QueryNorm), false),
    ("layers.#.self_attn.k_norm", One(KeyNorm), false),
    ("layers.#.self_attn.o_proj", One(AttentionOutput), false),
    ("layers.#.post_attention_layernorm", One(NormBeforeMlp), false),
    ("layers.#.mlp.gate_proj", One(MlpGate), false),
    ("layers.#.mlp.up_proj", One(MlpUp), false),
    ("layers.#.mlp.down_proj", One(MlpDown), false),
    ("model.norm", One(FinalNorm), false),
    // T5
    ("shared", One(TokenEmbedding), false),
    ("block.#.layer.0.SelfAttention.q", One(AttentionQuery), false),
    ("block.#.layer.0.SelfAttention.k", One(AttentionKey), false),
    ("block.#.layer.0.SelfAttention.v", One(AttentionValue), false),
    ("block.#.layer.0.SelfAttention.o", One(AttentionOutput), false),
    ("block.#.layer.0.SelfAttention.relative_attention_bias", One(RelativePosition), false),
    ("block.#.layer.0.layer_norm", One(NormBeforeAttention), false),
    ("block.#.layer.1.EncDecAttention.q", One(CrossQuery), false),
    ("block.#.layer.1.EncDecAttention.k", One(CrossKey), false),
    ("block.#.layer.1.EncDecAttention.v", One(CrossValue), false),
    ("block.#.layer.1.EncDecAttention.o", One(CrossOutput), false),
    ("encoder.block.#.layer.1.layer_norm", One(NormBeforeMlp), false),
    ("decoder.block.#.layer.1.layer_norm", One(NormBeforeCross), false),
    ("decoder.block.#.layer.2.layer_norm", One(NormBeforeMlp), false),
    ("DenseReluDense.wi", One(MlpUp), false),
    ("DenseReluDense.wi_0", One(MlpGate), false),
    ("DenseReluDense.wi_1", One(MlpUp), false),
    ("DenseReluDense.wo", One(MlpDown), false),
    ("block.#.layer.1.DenseReluDense.wi", One(MlpUp), false),
    ("block.#.layer.1.DenseReluDense.wi_0", One(MlpGate), false),
    ("block.#.layer.1.DenseReluDense.wi_1", One(MlpUp), false),
    ("block.#.layer.1.DenseReluDense.wo", One(MlpDown), false),
    ("block.#.layer.2.DenseReluDense.wi", One(MlpUp), false),
    ("block.#.layer.2.DenseReluDense.wi_0", One(MlpGate), false),
    ("block.#.layer.2.DenseReluDense.wi_1", One(MlpUp), false),
    ("block.#.layer.2.DenseReluDense.wo", One(MlpDown), false),
    ("final_layer_norm", One(FinalNorm), false),
    // ModernBERT
    ("tok_embeddings", One(TokenEmbedding), false),
    ("embeddings.norm", One(EmbeddingNorm), false),
    ("layers.#.attn_norm", One(NormBeforeAttention), false),
    ("layers.#.attn.Wqkv", Qkv, false),
    ("layers.#.attn.Wo", One(AttentionOutput), false),
    ("layers.#.mlp_norm", One(NormBeforeMlp), false),
    ("layers.#.mlp.Wi", GateUp, false),
    ("layers.#.mlp.Wo", One(MlpDown), false),
    ("final_norm", One(FinalNorm), false),
    ("head.dense", One(HeadDense), false),
    ("head.norm", One(HeadNorm), false),
    // Heads
    ("transform.dense", One(HeadDense), false),
    ("transform.LayerNorm", One(HeadNorm), false),
    ("predictions.decoder", One(Head), false),
    ("cls.predictions", One(Head), false),
    ("lm_head", One(Head), false),
    ("lm_head.dense", One(HeadDense), false),
    ("lm_head.layer_norm", One(HeadNorm), false),
    ("lm_head.decoder", One(Head), false),
    ("classifier", One(Head), false),
    ("classifier.dense", One(HeadDense), false),
    ("classifier.out_proj", One(Head), false),
    ("qa_outputs", One(Head), false),
    ("score", One(Head), false),
    ("decoder", One(Head), false),
];

/// The block index when `name` ends in `pattern` at a dot; `Some(None)` when it has none.
fn match_end(name: &[&str], pattern: &str) -> Option<Option<usize>> {
    let n = pattern.split('.').count();
    if n > name.len() {
        return None;
    }
    let mut block = None;
    for (want, have) in pattern.split('.').zip(&name[name.len() - n..]) {
        if want == "#" {
            block = Some(have.parse().ok()?);
        } else if want != *have {
            return None;
        }
    }
    Some(block)
}

fn part_of(name: &str) -> (&str, WeightOrBias) {
    const ENDS: [(&str, WeightOrBias); 6] = [
        (".weight", WeightOrBias::Weight),
        (".bias", WeightOrBias::Bias),
        (".gamma", WeightOrBias::Weight),
        (".beta", WeightOrBias::Bias),
        (".scale", WeightOrBias::Weight),
        (".shift", WeightOrBias::Bias),
    ];
    for (end, part) in ENDS {
        if let Some(stem) = name.strip_suffix(end) {
            return (stem, part);
        }
    }
    (name, WeightOrBias::Weight)
}

fn is_decoder(stem: &str) -> bool {
    stem.starts_with("decoder.block.") || stem.contains(".decoder.block.")
}

/// Roles and views of a parameter; empty when neither host, name nor graph tells its role.
/// `nth` is the number of earlier uses of the same kind and part in the model's graph.
pub fn classify(param: &ParamSpec, nth: usize) -> Vec<RoleView> {
    if let Some(host) = param.role {
        let Some(role) = host.role else { return Vec::new() };
        let layout = host.layout.or(param.usage.and_then(|u| u.layout));
        let named = Named { kind: One(role), part: host.part, block: host.block, inout: false };
        return role_views(param, &named, Stack::Main, layout);
    }
    let layout = param.usage.and_then(|u| u.layout);
    let (stem, part) = part_of(&param.name);
    let tokens: Vec<&str> = stem.split('.').collect();
    let best = NAMES
        .iter()
        .filter_map(|row| match_end(&tokens, row.0).map(|block| (row, block)))
        .max_by_key(|(row, _)| row.0.len());
    if let Some((&(_, kind, inout), block)) = best {
        let stack = if is_decoder(stem) { Stack::Decoder } else { Stack::Main };
        return role_views(param, &Named { kind, part, block, inout }, stack, layout);
    }
    let Some((kind, usage)) = param.usage.and_then(|u| u.kind.map(|k| (k, u))) else {
        return Vec::new();
    };
    let kind = from_use(kind);
    let in_block = match kind {
        One(role) => role.is_hidden_matrix() || (NormBeforeAttention..FinalNorm).contains(&role),
        Qkv | GateUp => true,
    };
    let named = Named { kind, part: usage.part, block: in_block.then_some(nth), inout: false };
    role_views(param, &named, Stack::Main, layout)
}

struct Named {
    kind: NamedRole,
    part: WeightOrBias,
    block: Option<usize>,
    inout: bool,
}

fn from_use(kind: UseKind) -> NamedRole {
    match kind {
        UseKind::Table => One(TokenEmbedding),
        UseKind::PositionTable => One(PositionEmbedding),
        UseKind::ScoreLeft => One(AttentionQuery),
        UseKind::ScoreRight => One(AttentionKey),
        UseKind::Context => One(AttentionValue),
        UseKind::FusedQkv => Qkv,
        UseKind::AfterContext => One(AttentionOutput),
        UseKind::Expanding => One(MlpUp),
        UseKind::Gate => One(MlpGate),
        UseKind::Contracting => One(MlpDown),
        UseKind::NormBeforeAttention => One(NormBeforeAttention),
        UseKind::NormAfterAttention => One(NormAfterAttention),
        UseKind::NormBeforeMlp => One(NormBeforeMlp),
        UseKind::NormAfterMlp => One(NormAfterMlp),
        UseKind::FinalNorm => One(FinalNorm),
        UseKind::EmbeddingNorm => One(EmbeddingNorm),
        UseKind::Head => One(Head),
    }
}

fn role_views(
    param: &ParamSpec,
    n: &Named,
    stack: Stack,
    layout: Option<WeightLayout>,
) -> Vec<RoleView> {
    let [rows, cols] = matrix_shape(&param.shape);
    let is_matrix = param.shape.len() >= 2;
    let by_shape = match n.kind {
        // A published name stands for both layouts: the longer side is the fused one.
        Qkv if is_matrix && rows == 3 * cols => Some(WeightLayout::OutIn),
        Qkv if is_matrix && cols == 3 * rows => Some(WeightLayout::InOut),
        _ => None,
    };
    let named = if n.inout { WeightLayout::InOut } else { WeightLayout::OutIn };
    let layout = layout.or(by_shape).unwrap_or(named);
    let roles: &[Role] = match &n.kind {
        One(role) => std::slice::from_ref(role),
        Qkv => &[AttentionQuery, AttentionKey, AttentionValue],
        GateUp => &[MlpGate, MlpUp],
    };
    let transposed = is_matrix && layout == WeightLayout::InOut && roles[0].is_linear();
    let axis = usize::from(!is_matrix || transposed);
    let length = [rows, cols][axis] / roles.len();
    let fits = length * roles.len() == [rows, cols][axis];
    let view = |i: usize| {
        let view = match roles.len() {
            1 => Some(View::whole(&param.shape)),
            _ if fits => View::slice(&param.shape, axis, i * length, length),
            _ => None,
        }?;
        Some(if transposed { view.transpose() } else { view })
    };
    let role_view = |(i, &role): (usize, &Role)| {
        Some(RoleView { role, part: n.part, stack, block: n.block, view: view(i)? })
    };
    roles.iter().enumerate().filter_map(role_view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::plan::role::{RoleOverride, Usage};

    fn check(
        name: &str,
        shape: &[usize],
        expected: &[(Role, WeightOrBias, Option<usize>, [usize; 2])],
    ) {
        let views = classify(&ParamSpec::new(name, shape), 0);
        let got: Vec<_> = views.iter().map(|p| (p.role, p.part, p.block, p.view.shape())).collect();
        assert_eq!(got, expected, "{name}");
    }

    #[test]
    fn published_names() {
        use WeightOrBias::{Bias, Weight};
        let w = |role, block, shape| [(role, Weight, block, shape)];
        let q = "encoder.layer.7.attention.self.query.weight";
        check(q, &[8, 8], &w(AttentionQuery, Some(7), [8, 8]));
        let up = "roberta.encoder.layer.0.intermediate.dense.weight";
        check(up, &[32, 8], &w(MlpUp, Some(0), [32, 8]));
        check("transformer.h.3.mlp.c_fc.weight", &[8, 32], &w(MlpUp, Some(3), [32, 8]));
        check("h.3.mlp.c_proj.weight", &[32, 8], &w(MlpDown, Some(3), [8, 32]));
        check(
            "h.11.attn.c_attn.bias",
            &[24],
            &[
                (AttentionQuery, Bias, Some(11), [1, 8]),
                (AttentionKey, Bias, Some(11), [1, 8]),
                (AttentionValue, Bias, Some(11), [1, 8]),
            ],
        );
        check(
            "model.layers.2.mlp.Wi.weight",
            &[64, 8],
            &[(MlpGate, Weight, Some(2), [32, 8]), (MlpUp, Weight, Some(2), [32, 8])],
        );
        let o = "bert.encoder.layer.1.attention.output.dense.bias";
        check(o, &[8], &[(AttentionOutput, Bias, Some(1), [1, 8])]);
        check("vit.embeddings.cls_token", &[1, 1, 8], &w(ClassToken, None, [1, 8]));
        check("something.else.weight", &[8, 8], &[]);
    }

    #[test]
    fn graph_and_host_speak_where_names_do_not() {
        let mut p = ParamSpec::new("onnx::MatMul_123", &[8, 32]);
        assert!(classify(&p, 4).is_empty());
        p.usage = Some(Usage {
            kind: Some(UseKind::Expanding),
            part: WeightOrBias::Weight,
            layout: Some(WeightLayout::InOut),
            order: 9,
        });
        let views = classify(&p, 4);
        assert_eq!((views[0].role, views[0].block), (MlpUp, Some(4)));
        assert_eq!(views[0].view.shape(), [32, 8]);
        p.role = Some(RoleOverride {
            role: Some(Head),
            part: WeightOrBias::Weight,
            block: None,
            layout: None,
        });
        assert_eq!(classify(&p, 0)[0].role, Head);
        p.role = Some(RoleOverride {
            role: None,
            part: WeightOrBias::Weight,
            block: None,
            layout: None,
        });
        assert!(classify(&p, 0).is_empty());
    }
}

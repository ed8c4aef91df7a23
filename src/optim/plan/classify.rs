//! The roles of a parameter, from the host, its published name, or its use in the graph.
//!
//! A linear weight is stored `[out, in]`, or `[in, out]` as in GPT-2 and most exported graphs. Its
//! logical view is always `[out, in]`.

use crate::optim::plan::role::{Role, Stack, UseKind, WeightLayout, WeightOrBias};
use crate::optim::plan::spec::{ModelSpec, ParamSpec};
use crate::optim::plan::view::{View, matrix_shape};

/// One view of a parameter with its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// What it does.
    pub role: Role,
    /// Weight, bias, or an adapter of the weight.
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
    /// The same of cross attention.
    QkvOfCross,
    /// Gate and up side by side.
    GateUp,
}

use NamedRole::{GateUp, One, Qkv, QkvOfCross};
use Role::*;

/// What the names of a model say together.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::optim) struct Naming {
    /// GPT-2's names over PyTorch's linear layers, stored `[out, in]` (nanoGPT).
    out_in: bool,
    /// An encoder and a decoder with blocks of the same names (`nn.Transformer`).
    two_stacks: bool,
}

impl Naming {
    pub fn of(spec: &ModelSpec) -> Self {
        let fused = |p: &ParamSpec| {
            p.name.ends_with("attn.c_attn.weight")
                && matches!(p.shape[..], [rows, cols] if rows == 3 * cols)
        };
        let has = |part: &str| spec.params.iter().any(|p| p.name.contains(part));
        Self {
            out_in: spec.params.iter().any(fused),
            two_stacks: has("encoder.layers.") && has("decoder.layers."),
        }
    }
}

/// Ends of published names without `.weight` or `.bias`; `#` is a block index, and `^` begins a
/// name that must be whole. `true` marks weights stored `[in, out]`. The longest match wins.
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
    // PyTorch's nn.TransformerEncoderLayer, nn.TransformerDecoderLayer and nn.MultiheadAttention.
    // Their norms follow what they norm, unless norm_first is set, which names do not tell.
    ("layers.#.self_attn.in_proj", Qkv, false),
    ("layers.#.self_attn.out_proj", One(AttentionOutput), false),
    ("layers.#.multihead_attn.in_proj", QkvOfCross, false),
    ("layers.#.multihead_attn.out_proj", One(CrossOutput), false),
    ("layers.#.linear1", One(MlpUp), false),
    ("layers.#.linear2", One(MlpDown), false),
    ("layers.#.norm1", One(NormAfterAttention), false),
    ("layers.#.norm2", One(NormAfterMlp), false),
    // Between cross attention and mlp.
    ("decoder.layers.#.norm2", One(NormBeforeMlp), false),
    ("layers.#.norm3", One(NormAfterMlp), false),
    ("encoder.norm", One(FinalNorm), false),
    ("decoder.norm", One(FinalNorm), false),
    // timm's vision transformers
    ("patch_embed.proj", One(PatchEmbedding), false),
    ("pos_embed", One(PositionEmbedding), false),
    ("blocks.#.norm1", One(NormBeforeAttention), false),
    ("blocks.#.attn.qkv", Qkv, false),
    ("blocks.#.attn.q_norm", One(QueryNorm), false),
    ("blocks.#.attn.k_norm", One(KeyNorm), false),
    ("blocks.#.attn.proj", One(AttentionOutput), false),
    ("blocks.#.norm2", One(NormBeforeMlp), false),
    ("blocks.#.mlp.fc1", One(MlpUp), false),
    ("blocks.#.mlp.fc2", One(MlpDown), false),
    ("fc_norm", One(FinalNorm), false),
    ("^norm", One(FinalNorm), false),
    ("^head", One(Head), false),
    // torchvision's
    ("conv_proj", One(PatchEmbedding), false),
    ("class_token", One(ClassToken), false),
    ("pos_embedding", One(PositionEmbedding), false),
    ("layers.encoder_layer_#.ln_1", One(NormBeforeAttention), false),
    ("layers.encoder_layer_#.self_attention.in_proj", Qkv, false),
    ("layers.encoder_layer_#.self_attention.out_proj", One(AttentionOutput), false),
    ("layers.encoder_layer_#.ln_2", One(NormBeforeMlp), false),
    ("layers.encoder_layer_#.mlp.0", One(MlpUp), false),
    ("layers.encoder_layer_#.mlp.3", One(MlpDown), false),
    ("layers.encoder_layer_#.mlp.linear_1", One(MlpUp), false),
    ("layers.encoder_layer_#.mlp.linear_2", One(MlpDown), false),
    ("encoder.ln", One(FinalNorm), false),
    ("heads.head", One(Head), false),
    // OpenCLIP
    ("token_embedding", One(TokenEmbedding), false),
    ("positional_embedding", One(PositionEmbedding), false),
    ("class_embedding", One(ClassToken), false),
    ("visual.conv1", One(PatchEmbedding), false),
    ("ln_pre", One(EmbeddingNorm), false),
    ("resblocks.#.ln_1", One(NormBeforeAttention), false),
    ("resblocks.#.attn.in_proj", Qkv, false),
    ("resblocks.#.attn.out_proj", One(AttentionOutput), false),
    ("resblocks.#.ln_2", One(NormBeforeMlp), false),
    ("resblocks.#.mlp.c_fc", One(MlpUp), false),
    ("resblocks.#.mlp.c_proj", One(MlpDown), false),
    ("ln_post", One(FinalNorm), false),
    ("ln_final", One(FinalNorm), false),
    // Llama as its authors published it
    ("layers.#.attention_norm", One(NormBeforeAttention), false),
    ("layers.#.attention.wq", One(AttentionQuery), false),
    ("layers.#.attention.wk", One(AttentionKey), false),
    ("layers.#.attention.wv", One(AttentionValue), false),
    ("layers.#.attention.wo", One(AttentionOutput), false),
    ("layers.#.ffn_norm", One(NormBeforeMlp), false),
    ("layers.#.feed_forward.w1", One(MlpGate), false),
    ("layers.#.feed_forward.w2", One(MlpDown), false),
    ("layers.#.feed_forward.w3", One(MlpUp), false),
    ("^output", One(Head), false),
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
    let whole = pattern.strip_prefix('^');
    let pattern = whole.unwrap_or(pattern);
    let n = pattern.split('.').count();
    if n > name.len() || (whole.is_some() && n < name.len()) {
        return None;
    }
    let mut block = None;
    for (want, have) in pattern.split('.').zip(&name[name.len() - n..]) {
        if let Some(before) = want.strip_suffix('#') {
            block = Some(have.strip_prefix(before)?.parse().ok()?);
        } else if want != *have {
            return None;
        }
    }
    Some(block)
}

fn part_of(name: &str) -> (&str, WeightOrBias) {
    // nn.MultiheadAttention has no layer for these.
    for (end, part) in [("_weight", WeightOrBias::Weight), ("_bias", WeightOrBias::Bias)] {
        if let Some(stem) = name.strip_suffix(end).filter(|stem| stem.ends_with("in_proj")) {
            return (stem, part);
        }
    }
    const ENDS: [(&str, WeightOrBias); 8] = [
        (".lora_A.weight", WeightOrBias::LoraA),
        (".lora_B.weight", WeightOrBias::LoraB),
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

fn is_decoder(stem: &str, naming: Naming) -> bool {
    let inside = |part: &str| {
        stem.match_indices(part).any(|(at, _)| at == 0 || stem.as_bytes()[at - 1] == b'.')
    };
    inside("decoder.block.") || (naming.two_stacks && inside("decoder.layers."))
}

/// Roles and views of a parameter; empty when neither host, name nor graph tells its role.
/// `nth` is the number of earlier uses of the same kind and part in the model's graph.
pub fn classify(param: &ParamSpec, nth: usize) -> Vec<RoleView> {
    classify_in(param, nth, Naming::default())
}

/// As [`classify`], of a parameter of a model whose names say more together.
pub(in crate::optim) fn classify_in(
    param: &ParamSpec,
    nth: usize,
    naming: Naming,
) -> Vec<RoleView> {
    if let Some(host) = param.role {
        let Some(role) = host.role else { return Vec::new() };
        let layout = host.layout.or(param.usage.and_then(|u| u.layout));
        let kind = match role {
            AttentionQkv => Qkv,
            CrossQkv => QkvOfCross,
            MlpGateUp => GateUp,
            role => One(role),
        };
        let named = Named { kind, part: host.part, block: host.block, inout: false };
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
        let stack = if is_decoder(stem, naming) { Stack::Decoder } else { Stack::Main };
        let inout = inout && !naming.out_in;
        return role_views(param, &Named { kind, part, block, inout }, stack, layout);
    }
    let Some((kind, usage)) = param.usage.and_then(|u| u.kind.map(|k| (k, u))) else {
        return Vec::new();
    };
    let kind = from_use(kind);
    let in_block = match kind {
        One(role) => role.is_hidden_matrix() || (NormBeforeAttention..FinalNorm).contains(&role),
        Qkv | QkvOfCross | GateUp => true,
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
    if n.part.is_adapter() {
        // Adapters are stored one way, and a fused matrix has one.
        let role = match n.kind {
            One(role) => role,
            Qkv => AttentionQkv,
            QkvOfCross => CrossQkv,
            GateUp => MlpGateUp,
        };
        let view = View::whole(&param.shape);
        return vec![RoleView { role, part: n.part, stack, block: n.block, view }];
    }
    let [rows, cols] = matrix_shape(&param.shape);
    let is_matrix = param.shape.len() >= 2;
    let by_shape = match n.kind {
        // A published name stands for both layouts: the longer side is the fused one.
        Qkv | QkvOfCross if is_matrix && rows == 3 * cols => Some(WeightLayout::OutIn),
        Qkv | QkvOfCross if is_matrix && cols == 3 * rows => Some(WeightLayout::InOut),
        _ => None,
    };
    let named = if n.inout { WeightLayout::InOut } else { WeightLayout::OutIn };
    let layout = layout.or(by_shape).unwrap_or(named);
    let roles: &[Role] = match &n.kind {
        One(role) => std::slice::from_ref(role),
        Qkv => &[AttentionQuery, AttentionKey, AttentionValue],
        QkvOfCross => &[CrossQuery, CrossKey, CrossValue],
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
        // Adapters lie as they are applied, whatever the layout of the weight.
        let (a, b) = (WeightOrBias::LoraA, WeightOrBias::LoraB);
        let name = "bert.encoder.layer.1.attention.self.key.lora_A.weight";
        check(name, &[2, 8], &[(AttentionKey, a, Some(1), [2, 8])]);
        let name = "transformer.h.3.mlp.c_fc.lora_B.weight";
        check(name, &[32, 2], &[(MlpUp, b, Some(3), [32, 2])]);
        let name = "transformer.h.0.attn.c_attn.lora_B.weight";
        check(name, &[24, 2], &[(AttentionQkv, b, Some(0), [24, 2])]);
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
    fn names_of_pytorch_modules() {
        use WeightOrBias::{Bias, Weight};
        let qkv = |part, block, shape: [usize; 2]| {
            [AttentionQuery, AttentionKey, AttentionValue].map(|role| (role, part, block, shape))
        };
        let w = |role, block, shape| [(role, Weight, Some(block), shape)];
        let layer = "encoder.layers.4";
        check(
            &format!("{layer}.self_attn.in_proj_weight"),
            &[24, 8],
            &qkv(Weight, Some(4), [8, 8]),
        );
        check(&format!("{layer}.self_attn.in_proj_bias"), &[24], &qkv(Bias, Some(4), [1, 8]));
        check(&format!("{layer}.linear1.weight"), &[32, 8], &w(MlpUp, 4, [32, 8]));
        check("layers.0.linear2.weight", &[8, 32], &w(MlpDown, 0, [8, 32]));
        check("layers.1.norm2.weight", &[8], &w(NormAfterMlp, 1, [1, 8]));
        check("decoder.layers.1.norm2.weight", &[8], &w(NormBeforeMlp, 1, [1, 8]));
        check("blocks.3.attn.qkv.weight", &[24, 8], &qkv(Weight, Some(3), [8, 8]));
        check("blocks.3.attn.proj.weight", &[8, 8], &w(AttentionOutput, 3, [8, 8]));
        check("blocks.3.mlp.fc1.weight", &[32, 8], &w(MlpUp, 3, [32, 8]));
        let vision = "encoder.layers.encoder_layer_11";
        check(
            &format!("{vision}.self_attention.in_proj_weight"),
            &[24, 8],
            &qkv(Weight, Some(11), [8, 8]),
        );
        check(&format!("{vision}.mlp.3.weight"), &[8, 32], &w(MlpDown, 11, [8, 32]));
        let clip = "visual.transformer.resblocks.2";
        check(&format!("{clip}.attn.in_proj_weight"), &[24, 8], &qkv(Weight, Some(2), [8, 8]));
        check(&format!("{clip}.mlp.c_fc.weight"), &[32, 8], &w(MlpUp, 2, [32, 8]));
        check("layers.5.attention.wk.weight", &[8, 8], &w(AttentionKey, 5, [8, 8]));
        check("layers.5.feed_forward.w3.weight", &[32, 8], &w(MlpUp, 5, [32, 8]));
        check("norm.weight", &[8], &[(FinalNorm, Weight, None, [1, 8])]);
        check("output.weight", &[99, 8], &[(Head, Weight, None, [99, 8])]);
        check("attn.norm.weight", &[8], &[]);
    }

    #[test]
    fn the_names_of_a_model_speak_together() {
        let views = |params: &[(&str, &[usize])], at: usize| {
            let params = params.iter().map(|(name, shape)| ParamSpec::new(*name, shape)).collect();
            let spec = ModelSpec::new("m", params);
            classify_in(&spec.params[at], 0, Naming::of(&spec))
        };
        // nanoGPT stores what GPT-2 stores transposed.
        let square: (&str, &[usize]) = ("h.0.attn.c_proj.weight", &[8, 8]);
        let nano = views(&[("h.0.attn.c_attn.weight", &[24, 8]), square], 1);
        let gpt2 = views(&[("h.0.attn.c_attn.weight", &[8, 24]), square], 1);
        assert!(!nano[0].view.transposed && gpt2[0].view.transposed);
        // An encoder and a decoder are two stacks; a decoder alone is one.
        let a: (&str, &[usize]) = ("encoder.layers.0.linear1.weight", &[8, 8]);
        let b: (&str, &[usize]) = ("decoder.layers.0.linear1.weight", &[8, 8]);
        assert_eq!(views(&[a, b], 1)[0].stack, Stack::Decoder);
        assert_eq!(views(&[a, b], 0)[0].stack, Stack::Main);
        assert_eq!(views(&[b], 0)[0].stack, Stack::Main);
    }

    #[test]
    fn hosts_name_fused_matrices() {
        let check = |json: &str, shape: &[usize], roles: &[Role], expect: [usize; 2]| {
            let mut p = ParamSpec::new("w", shape);
            p.role = Some(RoleOverride::from_json(json).unwrap());
            let views = classify(&p, 0);
            assert_eq!(views.iter().map(|v| v.role).collect::<Vec<_>>(), roles);
            assert!(views.iter().all(|v| v.view.shape() == expect && v.block == Some(2)), "{json}");
        };
        let qkv = [AttentionQuery, AttentionKey, AttentionValue];
        let json = "{\"role\": \"attention_qkv\", \"part\": \"weight\", \"block\": 2}";
        check(json, &[24, 8], &qkv, [8, 8]);
        check(json, &[8, 24], &qkv, [8, 8]);
        check(&json.replace("weight", "bias"), &[24], &qkv, [1, 8]);
        let cross = json.replace("attention_qkv", "cross_qkv");
        check(&cross, &[24, 8], &[CrossQuery, CrossKey, CrossValue], [8, 8]);
        let gate = json.replace("attention_qkv", "mlp_gate_up");
        check(&gate, &[64, 8], &[MlpGate, MlpUp], [32, 8]);
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

//! The published implementation's classes of parameters.

/// The class of a parameter's name: `kind_type`. Case-sensitive; `roberta` contains `bert`.
pub fn paper_class(name: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    let kind = ["bert", "gpt", "roberta", "transformer"]
        .into_iter()
        .find(|k| name.contains(k))
        .unwrap_or("unknown");
    let type_ = if has(&["query", "key", "value"]) {
        "attention"
    } else if has(&["dense", "fc", "ffn"]) {
        "ffn"
    } else if has(&["embedding"]) {
        "embedding"
    } else if has(&["norm"]) {
        "norm"
    } else if has(&["bias"]) {
        "bias"
    } else {
        name.rsplit('.').next().unwrap_or(name)
    };
    format!("{kind}_{type_}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_published_order_of_words() {
        let check = |name: &str, class: &str| assert_eq!(paper_class(name), class);
        check("roberta.encoder.layer.0.attention.self.query.weight", "bert_attention");
        check("bert.encoder.layer.0.attention.output.dense.weight", "bert_ffn");
        check("transformer.h.0.attn.c_attn.weight", "transformer_weight");
        check("bert.embeddings.LayerNorm.weight", "bert_embedding");
        check("norm1.bias", "unknown_norm");
        check("Query.weight", "unknown_weight");
        check("w", "unknown_w");
        check("", "unknown_");
    }
}

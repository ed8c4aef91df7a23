//! The published implementation's classes, multiplier and scheduler, as they were measured.

use crate::optim::options::Multiplier;
use std::f64::consts::PI;

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

/// The optimizer's own factor at step `s` ≥ 0 with `accumulation` micro-batches a step: linear
/// warm-up, then 1 or a cosine of period 20000·accumulation that never falls below 0.1.
pub fn paper_multiplier(m: &Multiplier, s: u64, accumulation: u32) -> f64 {
    if s < m.warmup {
        return s as f64 / m.warmup.max(1) as f64;
    }
    if !m.cosine {
        return 1.0;
    }
    let x = (s - m.warmup).max(1) as f64 / (10_000.0 * f64::from(accumulation));
    (0.5 * (1.0 + (PI * x).cos())).max(0.1)
}

/// The scheduler's factor at its counter `e`, which counts micro-batches from 0.
pub fn paper_scale(e: u64, total: u64, warmup: u64, floor: f64) -> f64 {
    if e < warmup {
        return e as f64 / warmup.max(1) as f64;
    }
    let x = (e - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    (0.5 * (1.0 + (PI * x).cos())).max(floor)
}

/// The published rate after an update with the loss curve's slope.
pub fn paper_rate(rate: f64, slope: f64) -> f64 {
    0.9 * rate + 0.1 / (1.0 + slope.abs())
}

/// What the published rate makes of the learning rate.
pub fn paper_rate_factor(rate: f64) -> f64 {
    (1.0 / rate).clamp(0.5, 1.5)
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

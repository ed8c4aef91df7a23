//! Parameter lists of the published base configurations: BERT-base, GPT-2 small, RoBERTa-base,
//! with a sequence-classification head of two labels.

#![allow(dead_code)]

use mmopt::optim::{ModelSpec, ParamSpec};

/// Width, layers and the rest of a configuration.
#[derive(Clone, Copy)]
pub struct Size {
    pub hidden: usize,
    pub layers: usize,
    pub inner: usize,
}

/// The base size.
pub const BASE: Size = Size { hidden: 768, layers: 12, inner: 3072 };

struct List(Vec<ParamSpec>);

impl List {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.0.push(ParamSpec::new(name, shape));
    }

    /// Weight `[out, in]` and bias.
    fn linear(&mut self, name: &str, out: usize, inputs: usize) {
        self.add(format!("{name}.weight"), &[out, inputs]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn norm(&mut self, name: &str, n: usize) {
        self.add(format!("{name}.weight"), &[n]);
        self.add(format!("{name}.bias"), &[n]);
    }
}

fn encoder(list: &mut List, prefix: &str, s: Size) {
    for i in 0..s.layers {
        let at = format!("{prefix}.encoder.layer.{i}");
        for part in ["query", "key", "value"] {
            list.linear(&format!("{at}.attention.self.{part}"), s.hidden, s.hidden);
        }
        list.linear(&format!("{at}.attention.output.dense"), s.hidden, s.hidden);
        list.norm(&format!("{at}.attention.output.LayerNorm"), s.hidden);
        list.linear(&format!("{at}.intermediate.dense"), s.inner, s.hidden);
        list.linear(&format!("{at}.output.dense"), s.hidden, s.inner);
        list.norm(&format!("{at}.output.LayerNorm"), s.hidden);
    }
}

fn embeddings(list: &mut List, prefix: &str, s: Size, words: usize, places: usize, types: usize) {
    let at = format!("{prefix}.embeddings");
    list.add(format!("{at}.word_embeddings.weight"), &[words, s.hidden]);
    list.add(format!("{at}.position_embeddings.weight"), &[places, s.hidden]);
    list.add(format!("{at}.token_type_embeddings.weight"), &[types, s.hidden]);
    list.norm(&format!("{at}.LayerNorm"), s.hidden);
}

/// BERT with a pooler and a classifier.
pub fn bert(s: Size, words: usize) -> ModelSpec {
    let mut list = List(Vec::new());
    embeddings(&mut list, "bert", s, words, 512, 2);
    encoder(&mut list, "bert", s);
    list.linear("bert.pooler.dense", s.hidden, s.hidden);
    list.linear("classifier", 2, s.hidden);
    ModelSpec { architecture: Some("bert".into()), ..ModelSpec::new("bert", list.0) }
}

/// RoBERTa with its classification head.
pub fn roberta(s: Size, words: usize) -> ModelSpec {
    let mut list = List(Vec::new());
    embeddings(&mut list, "roberta", s, words, 514, 1);
    encoder(&mut list, "roberta", s);
    list.linear("classifier.dense", s.hidden, s.hidden);
    list.linear("classifier.out_proj", 2, s.hidden);
    ModelSpec { architecture: Some("roberta".into()), ..ModelSpec::new("roberta", list.0) }
}

/// GPT-2 with its score head; weights of blocks are stored `[in, out]`.
pub fn gpt2(s: Size, words: usize) -> ModelSpec {
    let mut list = List(Vec::new());
    list.add("transformer.wte.weight".into(), &[words, s.hidden]);
    list.add("transformer.wpe.weight".into(), &[1024, s.hidden]);
    for i in 0..s.layers {
        let at = format!("transformer.h.{i}");
        let mut turned = |name: &str, inputs: usize, out: usize| {
            list.add(format!("{at}.{name}.weight"), &[inputs, out]);
            list.add(format!("{at}.{name}.bias"), &[out]);
        };
        turned("attn.c_attn", s.hidden, 3 * s.hidden);
        turned("attn.c_proj", s.hidden, s.hidden);
        turned("mlp.c_fc", s.hidden, s.inner);
        turned("mlp.c_proj", s.inner, s.hidden);
        list.norm(&format!("{at}.ln_1"), s.hidden);
        list.norm(&format!("{at}.ln_2"), s.hidden);
    }
    list.norm("transformer.ln_f", s.hidden);
    list.add("score.weight".into(), &[2, s.hidden]);
    ModelSpec { architecture: Some("gpt2".into()), ..ModelSpec::new("gpt2", list.0) }
}

/// The three base-size models.
pub fn base() -> Vec<ModelSpec> {
    vec![bert(BASE, 30_522), gpt2(BASE, 50_257), roberta(BASE, 50_265)]
}

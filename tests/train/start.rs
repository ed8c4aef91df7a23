//! What fresh models start from: rows by text, widths, positions, the body by role and depth.

use std::sync::Arc;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, Role, Start, role_views};
use mmopt::train::{ModelOptions, Source, StartRows, Tokens, Trainer, TrainerOptions};
use mmopt::{Kind, Result};

const SIZES: Sizes = Sizes {
    vocab: 12,
    hidden: 16,
    layers: 2,
    heads: 2,
    intermediate: 32,
    positions: 10,
    dropout: 0.0,
};

fn bert_tokens() -> Tokens {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "▁b", "▁c", "d", "e", "▁f", "▁g", "h"];
    Tokens {
        pieces: pieces.map(str::to_owned).to_vec(),
        pad: Some(0),
        unknown: Some(1),
        first: Some(2),
        last: Some(3),
        mask: None,
    }
}

/// Another order, one token for several, one that is unknown there.
fn other_tokens() -> Tokens {
    let pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁g", "▁ade", "▁B", "▁zz", "d", "▁c", "▁a", "h"];
    Tokens {
        pieces: pieces.map(str::to_owned).to_vec(),
        pad: Some(1),
        unknown: Some(3),
        first: Some(0),
        last: Some(2),
        mask: None,
    }
}

/// Where the rows of a table of `other_tokens` come from; row 1 is padding and stays zero.
const ROWS: [&[usize]; 12] =
    [&[2], &[], &[3], &[1], &[10], &[4, 7, 8], &[5], &[], &[7], &[6], &[4], &[11]];

fn model(name: &str, config: Config, tokens: Option<Tokens>) -> ModelOptions {
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    let source = Source::Config(Box::new(config));
    ModelOptions { task, seed: 7, tokens: tokens.map(Arc::new), ..ModelOptions::new(name, source) }
}

fn trainer(start: Start, from: Option<&str>, models: Vec<ModelOptions>) -> Result<Trainer> {
    let mut optimizer = optim::Options { start, n_threads: 2, ..optim::Options::default() };
    optimizer.start_from = from.map(str::to_owned);
    Trainer::new(TrainerOptions { optimizer, ..TrainerOptions::default() }, models)
}

/// A BERT in a directory, with weights.
fn pretrained(dir: &tempfile::TempDir, name: &str, sizes: &Sizes) -> ModelOptions {
    let mut made = model(name, Config::bert(sizes), None);
    made.seed = 31;
    trainer(Start::Own, None, vec![made]).unwrap().save_model(0, dir.path()).unwrap();
    let source = Source::Directory(dir.path().to_owned());
    ModelOptions { tokens: Some(Arc::new(bert_tokens())), ..ModelOptions::new(name, source) }
}

fn values(trainer: &Trainer, model: usize, name: &str) -> Vec<f32> {
    trainer.parameter(model, name).unwrap().as_slice::<f32>().unwrap().to_vec()
}

fn row(table: &[f32], width: usize, row: usize) -> &[f32] {
    &table[row * width..(row + 1) * width]
}

const BERT_TOKENS: &str = "bert.embeddings.word_embeddings.weight";
const ROBERTA_TOKENS: &str = "roberta.embeddings.word_embeddings.weight";

#[test]
fn rows_of_equal_text_and_role_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = || model("roberta", Config::roberta(&SIZES), Some(other_tokens()));
    let bert = pretrained(&dir, "bert", &SIZES);
    let drawn = trainer(Start::Own, None, vec![fresh()]).unwrap();
    let started = trainer(Start::Pretrained, None, vec![bert, fresh()]).unwrap();
    let source = values(&started, 0, BERT_TOKENS);
    let (before, after) = (values(&drawn, 0, ROBERTA_TOKENS), values(&started, 1, ROBERTA_TOKENS));
    for (i, from) in ROWS.iter().enumerate() {
        let found = row(&after, 16, i);
        match from {
            [] => assert_eq!(found, row(&before, 16, i), "row {i} stays"),
            [one] => assert_eq!(found, row(&source, 16, *one), "row {i} is copied"),
            several => {
                let mean = |j: usize| {
                    let sum: f64 = several.iter().map(|&r| f64::from(source[r * 16 + j])).sum();
                    (sum / several.len() as f64) as f32
                };
                assert_eq!(found, (0..16).map(mean).collect::<Vec<_>>(), "row {i} is a mean");
            }
        }
    }
    let report = &started.start().models[0];
    assert_eq!(report.tables[0].rows, StartRows { copied: 9, composed: 1, fresh: 2 });
    // RoBERTa's positions begin after the padding token's id, 1.
    let (from, to) = (
        values(&started, 0, "bert.embeddings.position_embeddings.weight"),
        values(&started, 1, "roberta.embeddings.position_embeddings.weight"),
    );
    assert_eq!(from[..], to[2 * 16..]);
    // Equal widths: the body comes with it, the head does not.
    let (name, head) = ("encoder.layer.1.intermediate.dense.weight", "classifier.dense.weight");
    assert_eq!(
        values(&started, 0, &format!("bert.{name}")),
        values(&started, 1, &format!("roberta.{name}"))
    );
    assert_eq!(values(&drawn, 0, head), values(&started, 1, head));
    assert!(started.plan_text().contains("token embedding from 'bert': 9 rows copied, 1 composed"));
    let json = started.plan_json();
    assert_eq!(json["start"]["models"][0]["tables"][0]["rows_copied"], 9);
}

#[test]
fn aligned_models_have_equal_bits_in_three_architectures() {
    let tokens = || Some(bert_tokens());
    let models = || {
        let mut three = vec![
            model("bert", Config::bert(&SIZES), tokens()),
            model("gpt2", Config::gpt2(&SIZES), tokens()),
            model("roberta", Config::roberta(&SIZES), tokens()),
        ];
        three.iter_mut().zip([7, 8, 9]).for_each(|(m, seed)| m.seed = seed);
        three
    };
    let own = trainer(Start::Own, None, models()).unwrap();
    let aligned = trainer(Start::Aligned, None, models()).unwrap();
    for p in own.parameters(0).unwrap() {
        assert_eq!(values(&own, 0, p.name), values(&aligned, 0, p.name), "{}", p.name);
    }
    let b = |name: &str| values(&aligned, 0, &format!("bert.encoder.layer.1.{name}"));
    let r = |name: &str| values(&aligned, 2, &format!("roberta.encoder.layer.1.{name}"));
    let fused = values(&aligned, 1, "transformer.h.1.attn.c_attn.weight");
    for (i, part) in ["query", "key", "value"].into_iter().enumerate() {
        let weight = b(&format!("attention.self.{part}.weight"));
        assert_eq!(weight, r(&format!("attention.self.{part}.weight")));
        for out in 0..16 {
            for input in 0..16 {
                assert_eq!(fused[input * 48 + i * 16 + out], weight[out * 16 + input], "{part}");
            }
        }
    }
    assert_ne!(values(&own, 1, "transformer.h.1.attn.c_attn.weight"), fused);
    let table = values(&aligned, 0, BERT_TOKENS);
    assert_eq!(table, values(&aligned, 1, "transformer.wte.weight"));
    // Its row of the padding token stays zero.
    assert_eq!(table[32..], values(&aligned, 2, ROBERTA_TOKENS)[32..]);
    assert!(aligned.start().models[1].views.iter().any(|v| v.role == Role::AttentionQuery));
    let _ = role_views;
}

#[test]
fn errors_name_the_model_the_option_and_the_fix() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fresh = |tokens| model("gpt2", Config::gpt2(&SIZES), tokens);
    let check = |start, from, models, kind: Kind, texts: &[&str]| {
        let e = trainer(start, from, models).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        texts.iter().for_each(|text| assert!(e.message().contains(text), "{text} in {e}"));
    };
    let pre = Start::Pretrained;
    let known = || fresh(Some(other_tokens()));
    let bert = || pretrained(&one, "bert", &SIZES);
    let wrong = Kind::InvalidArgument;
    check(pre, None, vec![known()], wrong, &["start", "no model was loaded with weights"]);
    let both = vec![bert(), pretrained(&two, "second", &SIZES), known()];
    check(pre, None, both, wrong, &["'bert', 'second'", "start_from"]);
    check(pre, Some("gpt2"), vec![bert(), known()], wrong, &["start_from", "'gpt2'"]);
    check(pre, Some("x"), vec![bert(), known()], Kind::NotFound, &["start_from", "'x'", "'bert'"]);
    let texts = ["model 'gpt2'", "vocabulary", "mmopt_model_set_tokenizer"];
    check(pre, None, vec![bert(), fresh(None)], wrong, &texts);
    let mut long = other_tokens();
    long.pieces.push("▁more".into());
    let texts = ["model 'gpt2'", "13 ids", "12 rows"];
    check(pre, None, vec![bert(), fresh(Some(long))], Kind::Shape, &texts);
    check(Start::Own, Some("bert"), vec![bert()], wrong, &["start_from is set"]);
}

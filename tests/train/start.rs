//! What fresh models start from: rows by text, widths, positions, the body by role and depth.

use std::sync::{Arc, Mutex};

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, Role, Start};
use mmopt::tensor::Tensor;
use mmopt::train::{
    Level, ModelOptions, Source, StartRows, TensorView, Tokens, Trainer, TrainerOptions,
};
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
}

/// Rows of one token start equal and, while all models learn at one rate, stay so. A model with
/// weights keeps to itself.
#[test]
fn rows_of_tokens_are_shared_by_fresh_models() {
    let dir = tempfile::tempdir().unwrap();
    let mut gpt2 = model("gpt2", Config::gpt2(&SIZES), Some(bert_tokens()));
    gpt2.seed = 8;
    let mut roberta = model("roberta", Config::roberta(&SIZES), Some(other_tokens()));
    roberta.seed = 9;
    let models = vec![pretrained(&dir, "bert", &SIZES), gpt2.clone(), roberta.clone()];
    let optimizer = optim::Options {
        start: Start::Own,
        token_embeddings: optim::TokenEmbeddings::Shared,
        adaptive_lr: optim::AdaptiveLr::None,
        learning_rate: 1e-2,
        mutual: None,
        n_threads: 2,
        ..optim::Options::default()
    };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    let mut shared = Trainer::new(options, models).unwrap();
    let alone = trainer(Start::Own, None, vec![roberta]).unwrap();
    // Rows of gpt2 and of roberta that stand for the same token, roles of special ones included;
    // case tells tokens apart, and padding learns nothing.
    let pairs = [(2, 0), (3, 2), (1, 3), (10, 4), (7, 8), (6, 9), (4, 10), (11, 11)];
    let table = |t: &Trainer, m: usize, name: &str| values(t, m, name);
    let check = |shared: &Trainer| {
        let (a, b) = (table(shared, 1, "transformer.wte.weight"), table(shared, 2, ROBERTA_TOKENS));
        for (x, y) in pairs {
            assert_eq!(row(&a, 16, x), row(&b, 16, y), "rows {x} and {y}");
        }
        let others = (0..12).filter(|y| pairs.iter().all(|p| p.1 != *y)).map(|y| row(&b, 16, y));
        others.filter(|b| b.iter().any(|x| *x != 0.0)).for_each(|b| {
            assert!(a.chunks(16).all(|a| a != b));
        });
        b
    };
    let before = check(&shared);
    let own = table(&alone, 0, ROBERTA_TOKENS);
    for y in [5, 6, 7] {
        assert_eq!(row(&before, 16, y), row(&own, 16, y), "row {y} is of no other");
    }
    let bert = table(&shared, 0, BERT_TOKENS);
    for _ in 0..3 {
        for m in 0..3 {
            let ids = Tensor::from_slice(&[2, 4], &[2i64, 4, 10, 11, 0, 5, 8, 3]).unwrap();
            let mask = Tensor::from_slice(&[2, 4], &[1i64; 8]).unwrap();
            let labels = Tensor::from_slice(&[2], &[0i64, 1]).unwrap();
            let types = Tensor::from_slice(&[2, 4], &[0i64; 8]).unwrap();
            let mut batch = vec![
                TensorView::of("input_ids", &ids),
                TensorView::of("attention_mask", &mask),
                TensorView::of("labels", &labels),
            ];
            batch.extend((m == 0).then(|| TensorView::of("token_type_ids", &types)));
            shared.forward_backward(m, &batch).unwrap();
        }
        shared.step().unwrap();
    }
    let after = check(&shared);
    assert!(pairs.iter().any(|p| row(&after, 16, p.1) != row(&before, 16, p.1)));
    assert_ne!(bert, table(&shared, 0, BERT_TOKENS));
    let text = shared.plan_text();
    assert!(text.contains("token embedding rows [8, 16]: same tokens"), "{text}");
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
    let texts_of_unknown = ["model 'gpt2'", "vocabulary", "mmopt_model_set_tokenizer"];
    check(pre, None, vec![bert(), fresh(None)], wrong, &texts_of_unknown);
    let mut long = other_tokens();
    long.pieces.push("▁more".into());
    let texts = ["model 'gpt2'", "13 ids", "12 rows"];
    check(pre, None, vec![bert(), fresh(Some(long))], Kind::Shape, &texts);
    check(Start::Own, Some("bert"), vec![bert()], wrong, &["start_from is set"]);
    // What is asked for by name is an error with auto, too.
    let auto = Start::Auto;
    check(auto, Some("x"), vec![bert(), known()], Kind::NotFound, &["start_from", "'x'", "'bert'"]);
    check(auto, Some("x"), vec![known()], Kind::NotFound, &["start_from", "'x'", "'gpt2'"]);
    check(auto, Some("gpt2"), vec![bert(), known()], wrong, &["start_from", "'gpt2'"]);
    check(auto, Some("bert"), vec![bert(), fresh(None)], wrong, &texts_of_unknown);
}

/// Without a name, auto falls back on what was drawn, and says so in the plan and in the log.
#[test]
fn what_auto_could_not_do_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let gpt2 = |tokens| model("gpt2", Config::gpt2(&SIZES), tokens);
    let warnings = |tokens| {
        let models = vec![pretrained(&dir, "bert", &SIZES), gpt2(tokens)];
        let mut trainer = trainer(Start::Auto, None, models).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let sink = move |_: Level, text: &str| into.lock().unwrap().push(text.to_owned());
        trainer.set_log(Some((Level::Warning, Box::new(sink))));
        let mut heard = heard.lock().unwrap().clone();
        heard.retain(|text| text.starts_with("start"));
        (heard, trainer.plan_text())
    };
    let (heard, plan) = warnings(None);
    let why = "model 'gpt2': start is pretrained, and its vocabulary is unknown";
    assert!(heard.len() == 1 && heard[0].contains(why), "{heard:?}");
    assert!(plan.contains(&format!("start: auto, as drawn: {why}")), "{plan}");
    let (heard, plan) = warnings(Some(other_tokens()));
    assert!(heard.is_empty() && plan.contains("start: auto from 'bert'"), "{heard:?} {plan}");
}

/// The tables of tests/data/start/reference.py.
fn numbers(rows: usize, first: usize) -> Vec<f32> {
    let at = |r: usize, c: usize| ((r * r * 7 + c * 31 + r * c * 5 + c * c * 3) % 61) as f32;
    let row = |r: usize| (0..16).map(move |c| (at(r, c) - 30.0) / 64.0);
    (first..first + rows).flat_map(row).collect()
}

/// A BERT of width 16 with those tables.
fn with_numbers(dir: &tempfile::TempDir) -> ModelOptions {
    let bert = pretrained(dir, "bert", &SIZES);
    let mut trainer = trainer(Start::Own, None, vec![bert.clone()]).unwrap();
    for (name, table) in [
        (BERT_TOKENS, numbers(12, 0)),
        ("bert.embeddings.position_embeddings.weight", numbers(10, 20)),
    ] {
        let bytes: Vec<u8> = table.iter().flat_map(|x| x.to_ne_bytes()).collect();
        trainer.set_parameter(0, name, &bytes).unwrap();
    }
    trainer.save_model(0, dir.path()).unwrap();
    bert
}

/// The factor on the size of what was drawn.
const SCALE: f64 = 4.0;

fn rms(rows: &[&[f32]]) -> f64 {
    let values = rows.iter().flat_map(|row| row.iter());
    let sum: f64 = values.map(|&x| f64::from(x) * f64::from(x)).sum();
    (sum / (rows.len() * rows[0].len()) as f64).sqrt()
}

/// A fresh RoBERTa of another width, as drawn and started.
fn other_width(hidden: usize, n_threads: usize) -> (Trainer, Trainer) {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes { hidden, ..SIZES };
    let fresh = || model("roberta", Config::roberta(&sizes), Some(other_tokens()));
    let mut options = TrainerOptions::default();
    (options.optimizer.start, options.optimizer.n_threads) = (Start::Pretrained, n_threads);
    let started = Trainer::new(options, vec![with_numbers(&dir), fresh()]).unwrap();
    (trainer(Start::Own, None, vec![fresh()]).unwrap(), started)
}

const ROBERTA_POSITIONS: &str = "roberta.embeddings.position_embeddings.weight";

#[test]
fn a_narrower_table_is_projected_as_numpy_does() {
    let (drawn, started) = other_width(8, 2);
    let before = values(&drawn, 0, ROBERTA_TOKENS);
    let changed: Vec<&[f32]> =
        (0..12).filter(|&i| !ROWS[i].is_empty()).map(|i| row(&before, 8, i)).collect();
    let factor = SCALE * rms(&changed);
    let tokens = values(&started, 1, ROBERTA_TOKENS);
    let positions = values(&started, 1, ROBERTA_POSITIONS);
    let text = include_str!("../data/start/projection.txt");
    assert_eq!(text.lines().count(), 20);
    for line in text.lines() {
        let mut words = line.split(' ');
        let (name, index) =
            (words.next().unwrap(), words.next().unwrap().parse::<usize>().unwrap());
        let found = match name {
            "token" => row(&tokens, 8, index),
            _ => row(&positions, 8, index + 2),
        };
        for (&x, word) in found.iter().zip(words) {
            let wanted = factor * word.parse::<f64>().unwrap();
            assert!((f64::from(x) - wanted).abs() < 1e-7 * factor, "{line}: {x} for {wanted}");
        }
    }
    assert_eq!(row(&tokens, 8, 1), [0.0; 8]);
    assert_eq!(row(&tokens, 8, 7), row(&before, 8, 7));
    let text = started.plan_text();
    assert!(text.contains("projected 16 -> 8: 9 rows copied, 1 composed, 2 fresh"), "{text}");
    assert!(text.contains("its body is as drawn: hidden size 8, that of 'bert' 16"), "{text}");
}

#[test]
fn a_wider_table_keeps_its_other_columns() {
    let (drawn, started) = other_width(24, 2);
    let (before, after) = (values(&drawn, 0, ROBERTA_TOKENS), values(&started, 1, ROBERTA_TOKENS));
    let source = numbers(12, 0);
    let taken: Vec<Vec<f32>> = ROWS
        .iter()
        .filter(|from| !from.is_empty())
        .map(|from| {
            let mean = |j: usize| {
                from.iter().map(|&r| source[r * 16 + j]).sum::<f32>() / from.len() as f32
            };
            (0..16).map(mean).collect()
        })
        .collect();
    let changed: Vec<&[f32]> =
        (0..12).filter(|&i| !ROWS[i].is_empty()).map(|i| row(&before, 24, i)).collect();
    let scale = SCALE * rms(&changed) / rms(&taken.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut taken = taken.iter();
    for (i, from) in ROWS.iter().enumerate() {
        let (was, is) = (row(&before, 24, i), row(&after, 24, i));
        assert_eq!(was[16..], is[16..], "row {i}");
        if from.is_empty() {
            assert_eq!(was, is, "row {i}");
            continue;
        }
        for (&x, &wanted) in is.iter().zip(taken.next().unwrap()) {
            let wanted = scale * f64::from(wanted);
            assert!((f64::from(x) - wanted).abs() < 1e-6 * scale, "row {i}: {x} for {wanted}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let bits = |n_threads| {
        let (_, started) = other_width(8, n_threads);
        let names: Vec<String> =
            started.parameters(1).unwrap().map(|p| p.name.to_owned()).collect();
        names.iter().map(|name| values(&started, 1, name)).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert_eq!(one, bits(2));
    assert_eq!(one, bits(3));
}

#[test]
fn blocks_are_copied_by_relative_depth() {
    let dir = tempfile::tempdir().unwrap();
    let bert = pretrained(&dir, "bert", &Sizes { layers: 6, ..SIZES });
    let gpt2 = model("gpt2", Config::gpt2(&SIZES), Some(bert_tokens()));
    let started = trainer(Start::Pretrained, Some("bert"), vec![gpt2, bert]).unwrap();
    for (block, from) in [(0, 1), (1, 4)] {
        let up = values(&started, 0, &format!("transformer.h.{block}.mlp.c_fc.weight"));
        let source =
            values(&started, 1, &format!("bert.encoder.layer.{from}.intermediate.dense.weight"));
        for out in 0..32 {
            for input in 0..16 {
                assert_eq!(up[input * 32 + out], source[out * 16 + input]);
            }
        }
        let bias = values(&started, 0, &format!("transformer.h.{block}.attn.c_attn.bias"));
        let key = format!("bert.encoder.layer.{from}.attention.self.key.bias");
        assert_eq!(bias[16..32], values(&started, 1, &key));
    }
    let views = &started.start().models[0].views;
    let query = views.iter().find(|v| v.role == Role::AttentionQuery && v.block == Some(1));
    assert_eq!(query.unwrap().from_block, Some(4));
    let text = started.plan_text();
    assert!(text.contains("attention query weight, block 1 from 'bert', block 4"), "{text}");
}

#[test]
fn a_tied_head_follows_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut gpt2 = model("gpt2", Config::gpt2(&SIZES), Some(bert_tokens()));
    gpt2.task = Some(Task::CausalLm);
    let bert = pretrained(&dir, "bert", &SIZES);
    let started = trainer(Start::Pretrained, None, vec![bert, gpt2]).unwrap();
    assert!(started.parameters(1).unwrap().all(|p| !p.name.contains("lm_head")));
    let table = values(&started, 1, "transformer.wte.weight");
    assert_eq!(table, values(&started, 0, BERT_TOKENS));
}

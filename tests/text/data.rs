//! Real text, where the folder ../shared/data lies beside the checkout: every reader, and the
//! way from files to batches.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::panic)]

use mmopt::text::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Unpacks a file into `folder`; `None`, with a word on it, where there is none.
fn unpacked(folder: &Path, name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("../shared/data").join(format!("{name}.gz"));
    if !file.is_file() {
        eprintln!("not run: no {}", file.display());
        return None;
    }
    let out = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    assert!(out.status.success());
    let path = folder.join(name);
    std::fs::write(&path, out.stdout).unwrap();
    Some(path)
}

fn trained(corpus: &Corpus, style: TokenizerStyle) -> Tokenizer {
    let options = TokenizerTrainOptions { style, vocab_size: 6000, ..Default::default() };
    Tokenizer::train(&options, &corpus.texts().unwrap()).unwrap()
}

#[test]
fn sentences_for_three_models() {
    let folder = tempfile::tempdir().unwrap();
    let Some(train) = unpacked(folder.path(), "sst2-sentences-train.tsv") else { return };
    let Some(dev) = unpacked(folder.path(), "sst2-sentences-dev.tsv") else { return };
    let train = Corpus::read_classification(&train, &CorpusOptions::default(), None).unwrap();
    let dev =
        Corpus::read_classification(&dev, &CorpusOptions::default(), Some(train.labels())).unwrap();
    assert_eq!((train.len(), dev.len()), (6920, 872));
    assert_eq!(train.labels().names(), ["0", "1"]);
    assert!((dev.majority_fraction() - 444.0 / 872.0).abs() < 1e-9, "{}", dev.majority_fraction());
    let encode = |style| {
        let tokenizer = trained(&train, style);
        assert_eq!(tokenizer.vocab_size(), 6000);
        let options = EncodeOptions { max_length: Some(64), ..Default::default() };
        let data = Dataset::encode(&train, &tokenizer, &options).unwrap();
        let unknown = tokenizer.special_token_id(SpecialToken::Unk);
        let ids = data.sequences().iter().flat_map(|s| &s.ids);
        let fraction =
            ids.clone().filter(|id| Some(**id) == unknown).count() as f64 / ids.count() as f64;
        assert!(fraction < 0.001, "{style:?}: {fraction} unknown");
        Arc::new(data)
    };
    let data =
        [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta].map(encode).to_vec();
    let mut loader = Loader::new(data, LoaderOptions::default()).unwrap();
    let (mut rows, mut cells, mut tokens) = (0, 0, 0);
    while let Some(batches) = loader.next_batches().unwrap() {
        assert!(batches.iter().all(|b| b.examples == batches[0].examples));
        rows += batches[0].len();
        cells += batches.iter().map(|b| b.len() * b.sequence_length()).sum::<usize>();
        tokens += batches.iter().map(|b| b.tokens).sum::<usize>();
    }
    assert_eq!(rows, 6920);
    assert!(cells < tokens * 4 / 3, "{cells} cells for {tokens} tokens");
}

#[test]
fn entities() {
    for (name, sentences) in [("wnut17-dev.conll", 1009), ("wikigold.conll", 1696)] {
        let folder = tempfile::tempdir().unwrap();
        let Some(path) = unpacked(folder.path(), name) else { return };
        let corpus = Corpus::read_token_classification(&path, None).unwrap();
        assert_eq!(corpus.len(), sentences, "{name}");
        assert_eq!(corpus.labels().id("O"), Some(0));
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2] {
            let tokenizer = trained(&corpus, style);
            let options = EncodeOptions { max_length: Some(256), ..Default::default() };
            let data = Dataset::encode(&corpus, &tokenizer, &options).unwrap();
            let (mut labels_of_words, mut back) = (Vec::new(), Vec::new());
            for (i, sequence) in data.sequences().iter().enumerate() {
                let Example::Words { words, tags } = &corpus.examples()[i] else { panic!() };
                let Target::Tags(labels) = &sequence.target else { panic!() };
                let classes: Vec<u32> =
                    labels.iter().map(|&l| u32::try_from(l).unwrap_or(0)).collect();
                let found = data.word_classes(i, &classes, words.len()).unwrap();
                let name = |id: u32| corpus.labels().name(id).unwrap().to_owned();
                labels_of_words.push(tags.iter().map(|&t| name(t)).collect::<Vec<_>>());
                back.push(found.iter().map(|t| name(t.unwrap_or(0))).collect::<Vec<_>>());
            }
            let scores = metrics::entity_scores(&back, &labels_of_words).unwrap();
            assert!(scores.overall.f1 > 0.995, "{name} {style:?} {:?}", scores.overall);
            assert!(scores.overall.support > 500);
        }
    }
}

#[test]
fn questions() {
    let folder = tempfile::tempdir().unwrap();
    let Some(lines) = unpacked(folder.path(), "squad-train-sample.jsonl") else { return };
    let Some(nested) = unpacked(folder.path(), "xquad.en.json") else { return };
    let train = Corpus::read_question_answering(&lines).unwrap();
    let eval = Corpus::read_question_answering(&nested).unwrap();
    assert_eq!((train.len(), eval.len()), (3838, 1190));
    let part = eval.subset(&(0..200).collect::<Vec<_>>()).unwrap();
    for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
        let tokenizer = trained(&eval, style);
        let options = EncodeOptions { max_length: Some(192), ..Default::default() };
        let data = Dataset::encode(&part, &tokenizer, &options).unwrap();
        let (mut found, mut accepted) = (Vec::new(), Vec::new());
        for (i, sequence) in data.sequences().iter().enumerate() {
            let Example::Question { context, answers, .. } = &part.examples()[i] else { panic!() };
            let Target::Span(start, end) = sequence.target else { panic!() };
            let mut logits = [vec![0.0; sequence.ids.len()], vec![0.0; sequence.ids.len()]];
            if start >= 0 {
                logits[0][start as usize] = 1.0;
                logits[1][end as usize] = 1.0;
            }
            let [starts, ends] = logits;
            let best = data.best_answer(i, &starts, &ends, 64).unwrap().unwrap();
            found.push(context[best.start..best.end].to_owned());
            accepted.push(answers.iter().flatten().map(|a| a.text.clone()).collect::<Vec<_>>());
        }
        let scores = metrics::answer_scores(&found, &accepted).unwrap();
        // Tokens can be wider than answers (part of a word), so not all are exact.
        assert!(scores.exact_match > 96.0 && scores.f1 > 98.0, "{style:?} {scores:?}");
    }
}

#[test]
fn text_for_language_models() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = unpacked(folder.path(), "wikitext2-valid.txt") else { return };
    let corpus = Corpus::read_plain_text(&path, SampleBy::Paragraph).unwrap();
    let tokenizer = trained(&corpus, TokenizerStyle::Gpt2);
    let options = EncodeOptions { max_length: Some(128), ..Default::default() };
    let data = Dataset::encode(&corpus, &tokenizer, &options).unwrap();
    let full = data.sequences().iter().filter(|s| s.ids.len() == 128).count();
    assert!(full >= data.len() - 1 && full > 1000, "{full} of {}", data.len());
}

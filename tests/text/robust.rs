//! Damaged files: every reader answers with an error or with something that holds together,
//! and never panics.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::panic)]

use mmopt::text::*;
use std::path::Path;

/// A small generator of numbers (xorshift), good enough to damage bytes.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// A few bytes changed, cut out, doubled or put in.
fn damaged(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(bytes.len());
        let to = (at + dice.below(12)).min(bytes.len());
        match dice.below(5) {
            0 if !bytes.is_empty() => bytes[at] = dice.below(256) as u8,
            1 => drop(bytes.drain(at..to)),
            2 => {
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                let signs = *b"\t\n\"{}[],:0-\xC3\x80 \r\\";
                bytes.insert(at, signs[dice.below(signs.len())]);
            }
            _ => bytes.truncate(to),
        }
    }
    bytes
}

/// Reads `rounds` damaged versions of `good`, and encodes what could be read.
fn check(name: &str, good: &str, rounds: usize, read: impl Fn(&Path) -> mmopt::Result<Corpus>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let options = TokenizerTrainOptions { vocab_size: 300, min_frequency: 1, ..Default::default() };
    let tokenizer = Tokenizer::train(&options, &[good]).unwrap();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..rounds {
        std::fs::write(&path, damaged(good.as_bytes(), &mut dice)).unwrap();
        match read(&path) {
            Ok(corpus) => {
                let limits = EncodeOptions { max_length: Some(24), ..Default::default() };
                let data = Dataset::encode(&corpus, &tokenizer, &limits).unwrap();
                let all: Vec<usize> = (0..data.len()).collect();
                data.batch(&all, 8, 0).unwrap();
                fine += 1;
            }
            Err(e) => {
                assert!(e.message().contains(name), "no file in: {e}");
                refused += 1;
            }
        }
    }
    assert!(fine > 0 && refused > 0, "{name}: {fine} read, {refused} refused");
}

#[test]
fn damaged_corpora() {
    let labelled = |path: &Path| Corpus::read_classification(path, &CorpusOptions::default(), None);
    check("a.tsv", "a fine film\t1\nnot so caf\u{e9}\t0\r\nx\t1\n", 400, labelled);
    check("a.csv", "\"a, fine\",pos\nplain,neg\n", 400, labelled);
    let rows = "{\"text\":\"a\",\"label\":1}\n{\"sentence\":\"b\",\"label\":\"x\"}\n";
    check("a.jsonl", rows, 400, labelled);
    let words = "-DOCSTART- O\n\nEU B-ORG\nsays O\n\nyes\tx\tO\n";
    check("a.conll", words, 400, |path| Corpus::read_token_classification(path, None));
    let lines = "{\"context\":\"in \u{e9}t\u{e9} 1907 or so\",\"question\":\"when?\",\
        \"answers\":{\"text\":[\"1907\"],\"answer_start\":[7]}}\n";
    check("a.json", lines, 400, Corpus::read_question_answering);
    let nested = "{\"data\":[{\"paragraphs\":[{\"context\":\"in 1907\",\"qas\":[{\"id\":\"x\",\
        \"question\":\"?\",\"answers\":[{\"text\":\"1907\",\"answer_start\":3}]}]}]}]}";
    check("b.json", nested, 400, Corpus::read_question_answering);
    let plain = "one \u{e9}\n\ntwo\nthree\n";
    check("a.txt", plain, 300, |path| Corpus::read_plain_text(path, SampleBy::Paragraph));
}

#[test]
fn damaged_tokenizers() {
    let text = "the film was good and the caf\u{e9} was very good";
    for style in [TokenizerStyle::Bert, TokenizerStyle::Roberta] {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 300,
            min_frequency: 1,
            ..Default::default()
        };
        let tokenizer = Tokenizer::train(&options, &[text]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let mut dice = Dice(7);
        let names = ["tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"];
        for name in names.into_iter().chain(["tokenizer.json"]) {
            let path = folder.path().join(name);
            let Ok(good) = std::fs::read(&path) else { continue };
            if name != "tokenizer.json" {
                let _ = std::fs::remove_file(folder.path().join("tokenizer.json"));
            } else {
                tokenizer.save(folder.path()).unwrap();
            }
            for _ in 0..100 {
                std::fs::write(&path, damaged(&good, &mut dice)).unwrap();
                if let Ok(other) = Tokenizer::load(folder.path()) {
                    let ids = other.encode(text, Some("x"), 16, Truncation::LongestFirst);
                    if let Ok(encoding) = ids {
                        let most = encoding.ids.iter().max().copied().unwrap_or(0);
                        assert!((most as usize) < other.vocab_size());
                    }
                }
            }
            std::fs::write(&path, good).unwrap();
        }
    }
}

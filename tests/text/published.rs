//! Hostile strings as the published classes encode them: `tests/data/tokenizers/reference.py` makes
//! the numbers. Ids, token types and offsets of every configuration, also after saving.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::text::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(data().join(name)).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Where a token without any text stands is nobody's to say.
fn without_empty_spans(mut line: Value) -> Value {
    for span in line[2].as_array_mut().unwrap().chunks_mut(2) {
        if span[0] == span[1] {
            span.fill(json!(0));
        }
    }
    line
}

/// Ids, token types (empty where all are 0) and offsets, one after the other.
fn found(tokenizer: &Tokenizer, text: &str, pair: Option<&str>) -> Value {
    let e = tokenizer.encode(text, pair, 1 << 20, Truncation::Never).unwrap();
    let types = if e.type_ids.iter().all(|&t| t == 0) { Vec::new() } else { e.type_ids };
    let offsets: Vec<usize> = e.offsets.iter().flat_map(|&(a, b)| [a, b]).collect();
    without_empty_spans(json!([e.ids, types, offsets]))
}

#[test]
fn strings_are_encoded_as_the_published_classes_do() {
    let strings: Vec<String> = serde_json::from_str(&read("strings.json")).unwrap();
    assert_eq!(strings.len(), 435);
    let cases: Vec<(String, String, Value)> = serde_json::from_str(&read("cases.json")).unwrap();
    let lines = read("expected.jsonl");
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut wrong = Vec::new();
    let mut n = 0;
    for (name, base, files) in &cases {
        let dir = tempfile::tempdir().unwrap();
        copy(&data().join(base), dir.path());
        for (file, content) in files.as_object().unwrap() {
            std::fs::write(dir.path().join(file), content.to_string()).unwrap();
        }
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let again = Tokenizer::load(saved.path()).unwrap();
        for line in lines.iter().filter(|l| l[0] == **name) {
            let Some(i) = line[1].as_u64().map(|i| i as usize) else {
                assert_eq!(line[2], json!(tokenizer.vocab_size()), "{name}: ids");
                assert_eq!(tokenizer.vocab_size(), again.vocab_size(), "{name}: saved");
                continue;
            };
            n += 1;
            let second = &strings[(i + 7) % strings.len()];
            let second = if second.is_empty() { "mat" } else { second };
            let pair = (i % 5 == 0).then_some(second);
            let mut expect = without_empty_spans(json!([line[2], line[3], line[4]]));
            if tokenizer.style() == TokenizerStyle::Gpt2 {
                // A model without token types does not see them; a text without any token becomes
                // one end token here, for a sequence is never empty.
                expect[1] = json!([]);
                if expect[0] == json!([]) {
                    expect = json!([[tokenizer.special_token_id(SpecialToken::Eos)], [], [0, 0]]);
                }
            }
            for (what, tokenizer) in [("loaded", &tokenizer), ("saved", &again)] {
                let mut found = found(tokenizer, &strings[i], pair);
                if tokenizer.style() == TokenizerStyle::Gpt2 {
                    found[1] = json!([]);
                }
                if found != expect {
                    let text = &strings[i];
                    wrong.push(format!("{name} {what} {text:?} {pair:?}: {found}, not {expect}"));
                }
            }
        }
    }
    assert_eq!(n, 435 * cases.len());
    let some: Vec<&String> = wrong.iter().take(12).collect();
    assert!(wrong.is_empty(), "{} of {n} differ: {some:#?}", wrong.len());
}

/// Answers at any characters of 420 contexts of such strings: the span is that of the tokens that an
/// answer touches, and an answer that touches none is counted, never "no answer".
#[test]
fn answers_in_hostile_contexts_are_neither_lost_nor_moved() {
    let strings: Vec<String> = serde_json::from_str(&read("strings.json")).unwrap();
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n.max(1)
    };
    let mut n_untouched = 0;
    for base in ["bert", "gpt2", "roberta"] {
        let tokenizer = Tokenizer::load(&data().join(base)).unwrap();
        for _ in 0..420 {
            let parts: Vec<&str> = (0..6)
                .map(|_| strings[below(strings.len())].as_str())
                .filter(|s| s.len() < 200)
                .collect();
            let context = format!("{} x", parts.join(" "));
            let places: Vec<usize> =
                (0..=context.len()).filter(|&i| context.is_char_boundary(i)).collect();
            let first = below(places.len() - 1);
            let last = (first + 1 + below(8)).min(places.len() - 1);
            let (start, end) = (places[first], places[last]);
            let answer = Answer { text: context[start..end].to_owned(), start };
            let example = Example::Question {
                id: String::new(),
                context: context.clone(),
                question: "who?".into(),
                answers: Some(vec![answer]),
            };
            let corpus =
                Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), vec![example])
                    .unwrap();
            let options = EncodeOptions { all_windows: true, ..EncodeOptions::default() };
            let data = Dataset::encode(&corpus, &tokenizer, &options).unwrap();
            let [sequence] = data.sequences() else { continue };
            let offsets = &sequence.context.as_ref().unwrap().offsets;
            let touched: Vec<i64> = (0..offsets.len())
                .filter(|&i| offsets[i].0 < offsets[i].1)
                .filter(|&i| offsets[i].0 < end && offsets[i].1 > start)
                .map(|i| i as i64)
                .collect();
            let expect = match (touched.first(), touched.last()) {
                (Some(&first), Some(&last)) => Target::Span(first, last),
                _ => Target::None,
            };
            n_untouched += usize::from(touched.is_empty());
            assert_eq!(
                sequence.target,
                expect,
                "{base}: {:?} in {context:?}",
                &context[start..end]
            );
            assert_eq!(data.stats().n_unplaced_answers, u64::from(touched.is_empty()));
        }
    }
    assert!(n_untouched > 20, "{n_untouched}");
}

#[test]
fn what_was_read_is_saved() {
    let check = |base: &str, config: Value, class: &str, special: &[(SpecialToken, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        copy(&data().join(base), dir.path());
        if !config.is_null() {
            std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        }
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let text = std::fs::read_to_string(saved.path().join("tokenizer_config.json")).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["tokenizer_class"], class, "{base} {config}");
        let again = Tokenizer::load(saved.path()).unwrap();
        for &(special, text) in special {
            for tokenizer in [&tokenizer, &again] {
                let id = tokenizer.special_token_id(special).unwrap_or(u32::MAX);
                let found = tokenizer.token(id);
                assert_eq!(found.as_deref(), Some(text), "{base} {special:?}");
            }
        }
        found
    };
    use SpecialToken::*;
    // A class that makes no such pipeline is not made up.
    let all = [(Pad, "<pad>"), (Unk, "<unk>"), (Cls, "<s>"), (Sep, "</s>"), (Mask, "<mask>")];
    check("unigram", Value::Null, "PreTrainedTokenizerFast", &all);
    check("wordpiece", Value::Null, "BertTokenizer", &[(Pad, "[PAD]"), (Mask, "[MASK]")]);
    check("gpt2", Value::Null, "GPT2Tokenizer", &[(Eos, "<|endoftext|>")]);
    // The class that was read stays, and so do keys that mean nothing here.
    let kept = json!({"tokenizer_class": "XLMRobertaTokenizer", "legacy": false});
    let found = check("unigram", kept, "XLMRobertaTokenizer", &all);
    assert_eq!(found["legacy"], false);
    // No special token of its style, but added tokens with usual names.
    let t5 = json!({"tokenizer_class": "T5Tokenizer"});
    check("unigram", t5, "T5Tokenizer", &[(Pad, "<pad>"), (Eos, "</s>"), (Unk, "<unk>")]);
    let albert = json!({"tokenizer_class": "AlbertTokenizer", "cls_token": "<s>"});
    check("unigram", albert, "AlbertTokenizer", &[(Cls, "<s>"), (Pad, "<pad>")]);
}

#[test]
fn a_pad_token_is_added_to_a_vocabulary_without_one() {
    let dir = tempfile::tempdir().unwrap();
    copy(&data().join("gpt2"), dir.path());
    let before = Tokenizer::load(dir.path()).unwrap();
    let config = dir.path().join("tokenizer_config.json");
    std::fs::write(&config, "{\"pad_token\":\"[PAD]\"}").unwrap();
    let check = |tokenizer: Tokenizer| {
        assert_eq!(tokenizer.vocab_size(), before.vocab_size() + 1);
        assert_eq!(tokenizer.special_token_id(SpecialToken::Pad), Some(before.vocab_size() as u32));
        let e = tokenizer.encode("[PAD]", None, 8, Truncation::Never).unwrap();
        assert_eq!(e.ids, [before.vocab_size() as u32]);
    };
    check(Tokenizer::load(dir.path()).unwrap());
    std::fs::write(&config, "{}").unwrap();
    let map = "{\"pad_token\":{\"content\":\"[PAD]\",\"lstrip\":false}}";
    std::fs::write(dir.path().join("special_tokens_map.json"), map).unwrap();
    check(Tokenizer::load(dir.path()).unwrap());
}

#[test]
fn sentence_piece_models_are_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spiece.model");
    std::fs::write(&file, b"\x0a\x0e\x0a\x05<unk>").unwrap();
    for path in [dir.path(), &file] {
        let e = Tokenizer::load(path).unwrap_err();
        assert_eq!(e.kind(), mmopt::Kind::Unsupported);
        assert!(
            e.message().contains("spiece.model") && e.message().contains("save_pretrained"),
            "{e}"
        );
    }
}

/// The most memory of the process in KiB.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A process of its own, whose memory is only this test's.
#[test]
#[cfg(target_os = "linux")]
fn a_line_of_ten_megabytes_needs_little_memory() {
    const CHILD: &str = "MMOPT_TEST_LONG_LINE";
    if std::env::var_os(CHILD).is_none() {
        let name = "published::a_line_of_ten_megabytes_needs_little_memory";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let line = "a fine film, and not at all a bad one; really ".repeat(220_000);
    let options = TokenizerTrainOptions { vocab_size: 300, ..Default::default() };
    let tokenizer = Tokenizer::train(&options, &[&line[..4600]]).unwrap();
    let before = peak();
    let e = tokenizer.encode(&line, None, 64, Truncation::LongestFirst).unwrap();
    let after = peak();
    assert!(e.len() == 64 && e.truncated > 2_000_000, "{} {}", e.len(), e.truncated);
    assert!(after - before < 200 << 10, "{} KiB", after - before);
}

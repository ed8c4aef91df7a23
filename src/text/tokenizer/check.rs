//! What is checked of a `tokenizer.json` before and after the `tokenizers` crate reads it. That
//! crate panics on some files and lets others through that fail or grow without bound later.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer as Pipeline,
};

/// A normalizer may make a text this many times as long.
const MAX_GROWTH: f64 = 64.0;
/// A greater id is an error of the file: embeddings need a row for each.
pub(crate) const MAX_IDS: usize = 1 << 24;

/// An error of the `tokenizers` crate.
pub(crate) fn tokenizers_error(e: tokenizers::Error) -> Error {
    Error::data(format!("tokenizer: {e}")).with_source(e)
}

/// Calls into the `tokenizers` crate; a panic there is an error of the file.
pub(crate) fn caught<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(tokenizers_error),
        Err(_) => Err(Error::data("tokenizer: its parts do not fit together; is it damaged?")),
    }
}

/// Reads the text of a `tokenizer.json`.
///
/// Errors: `InvalidData` that names the part.
pub(crate) fn parse(text: &str) -> Result<Pipeline> {
    let value: Value = serde_json::from_str(text).map_err(Error::json)?;
    if !value.is_object() {
        return Err(Error::data("not a JSON object"));
    }
    check_model(value.get("model"))?;
    check_growth(&value, "normalizer")?;
    check_growth(&value, "decoder")?;
    let read = catch_unwind(|| text.parse::<Pipeline>());
    let mut pipeline = match read {
        Ok(Ok(pipeline)) => pipeline,
        _ => return Err(Error::data(odd_part(&value))),
    };
    check_ids(&pipeline)?;
    let post_processor = pipeline.get_post_processor().map(serde_json::to_value).transpose();
    let post_processor = post_processor.map_err(Error::json)?.unwrap_or_default();
    check_post_processor(&post_processor, &pipeline)?;
    // Random merges are for training; texts have one encoding here.
    if let ModelWrapper::BPE(model) = pipeline.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        pipeline.with_model(model);
    }
    Ok(pipeline)
}

/// Names the part that cannot be read.
fn odd_part(value: &Value) -> String {
    fn reads<T: DeserializeOwned>(value: &Value, key: &str) -> bool {
        let part = value.get(key).cloned().unwrap_or_default();
        let read = || part.is_null() || serde_json::from_value::<T>(part).is_ok();
        catch_unwind(AssertUnwindSafe(read)).unwrap_or(false)
    }
    let parts = [
        ("normalizer", reads::<NormalizerWrapper>(value, "normalizer")),
        ("pre_tokenizer", reads::<PreTokenizerWrapper>(value, "pre_tokenizer")),
        ("post_processor", reads::<PostProcessorWrapper>(value, "post_processor")),
        ("decoder", reads::<DecoderWrapper>(value, "decoder")),
        ("model", !value["model"].is_null() && reads::<ModelWrapper>(value, "model")),
    ];
    match parts.iter().find(|(_, good)| !good) {
        Some((name, _)) => format!("its '{name}' is missing, damaged or of an unknown kind"),
        None => "it is damaged, or was written by a newer library".to_owned(),
    }
}

/// Byte-pair merges join two tokens into a third; all of them are in the vocabulary.
fn check_model(model: Option<&Value>) -> Result<()> {
    let Some(merges) = model.and_then(|m| m.get("merges")).and_then(Value::as_array) else {
        return Ok(());
    };
    let vocab = model.and_then(|m| m.get("vocab")).and_then(Value::as_object);
    let vocab = vocab.ok_or_else(|| Error::data("the model has merges and no vocabulary"))?;
    let prefix = model.and_then(|m| m.get("continuing_subword_prefix")).and_then(Value::as_str);
    let prefix = prefix.unwrap_or_default();
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(both) => match &both[..] {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (a, b) = pair.ok_or_else(|| Error::data(format!("merge {i} is not two tokens")))?;
        // The second token goes on inside a word, which the merged one says once.
        let inside = b.get(prefix.len()..);
        let merged = inside.map(|inside| format!("{a}{inside}"));
        let lacking = [Some(a), Some(b), merged.as_deref()].into_iter();
        let lacking = lacking.map(|t| t.unwrap_or(b)).find(|t| !vocab.contains_key(*t));
        match (lacking, inside) {
            (Some(token), _) => {
                let text = format!("merge {i} needs '{token}', which is not in the vocabulary");
                return Err(Error::data(text));
            }
            (None, None) => {
                return Err(Error::data(format!("merge {i}: '{b}' lacks the prefix '{prefix}'")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// How many times as long a text can become by replacements, which may follow each other.
fn growth(part: &Value) -> f64 {
    let steps = part.get("normalizers").or_else(|| part.get("decoders"));
    if let Some(steps) = steps.and_then(Value::as_array) {
        return steps.iter().map(growth).product();
    }
    let Some(content) = part.get("content").and_then(Value::as_str) else { return 1.0 };
    // A pattern may match the empty string at each byte.
    let pattern = part.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
    match pattern.map(str::len) {
        Some(length) if length > 0 => (content.len() as f64 / length as f64).max(1.0),
        _ => 1.0 + content.len() as f64,
    }
}

fn check_growth(value: &Value, key: &str) -> Result<()> {
    let times = value.get(key).map_or(1.0, growth);
    if times <= MAX_GROWTH {
        return Ok(());
    }
    Err(Error::data(format!(
        "the replacements of its '{key}' can make a text {times:.0} times as long; at most \
         {MAX_GROWTH} times are allowed"
    )))
}

fn check_ids(pipeline: &Pipeline) -> Result<()> {
    match pipeline.get_vocab(true).into_values().max() {
        Some(id) if id as usize >= MAX_IDS => {
            Err(Error::data(format!("a token has the id {id}; at most {MAX_IDS}")))
        }
        _ => Ok(()),
    }
}

/// Templates name tokens that they define, with ids of the vocabulary.
fn check_post_processor(value: &Value, pipeline: &Pipeline) -> Result<()> {
    if let Some(steps) = value.get("processors").and_then(Value::as_array) {
        return steps.iter().try_for_each(|step| check_post_processor(step, pipeline));
    }
    let known = |name: &str, id: &Value| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        match id.and_then(|id| pipeline.id_to_token(id)) {
            Some(_) => Ok(()),
            None => Err(Error::data(format!(
                "its 'post_processor' gives '{name}' an id that is not in the vocabulary"
            ))),
        }
    };
    for key in ["sep", "cls"] {
        if let Some([Value::String(name), id]) =
            value.get(key).and_then(Value::as_array).map(Vec::as_slice)
        {
            known(name, id)?;
        }
    }
    let special = value.get("special_tokens").and_then(Value::as_object);
    let mut defined = HashSet::new();
    for (name, token) in special.into_iter().flatten() {
        defined.insert(name.as_str());
        let ids = token.get("ids").and_then(Value::as_array);
        ids.into_iter().flatten().try_for_each(|id| known(name, id))?;
    }
    for key in ["single", "pair"] {
        for piece in value.get(key).and_then(Value::as_array).into_iter().flatten() {
            let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
            match (id("SpecialToken"), id("Sequence")) {
                (Some(name), _) if !defined.contains(name) => {
                    return Err(Error::data(format!(
                        "the template '{key}' of its 'post_processor' names '{name}', which is \
                         not among its special tokens"
                    )));
                }
                (_, Some("B")) if key == "single" => {
                    return Err(Error::data(
                        "the template 'single' of its 'post_processor' names a second text",
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "s", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"s": {"id": "s", "ids": [0], "tokens": ["s"]}}
            },
            "decoder": null,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "byte_fallback": false, "vocab": {"s": 0, "a": 1, "b": 2, "ab": 3},
                "merges": [["a", "b"]]
            }
        })
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Value), expect: &str) {
        let mut value = good();
        change(&mut value);
        let e = parse(&value.to_string()).unwrap_err();
        assert!(e.message().contains(expect), "{e}, not {expect}");
    }

    #[test]
    fn damaged_files_are_errors_that_name_the_part() {
        parse(&good().to_string()).unwrap();
        let e = parse("{\"decoder\":{\"type\":\"WordPiece\" x").unwrap_err();
        assert!(e.message().starts_with("not JSON at line 1"), "{e}");
        check(|v| v["model"]["vocab"] = json!({"a": 0, "b": 1}), "needs 'ab', which is not in");
        check(|v| v["model"]["merges"] = json!([["a", "c"]]), "merge 0 needs 'c'");
        check(|v| v["model"]["merges"] = json!(["a"]), "merge 0 is not two tokens");
        check(|v| v["model"]["continuing_subword_prefix"] = json!("####"), "lacks the prefix");
        check(|v| v["post_processor"]["special_tokens"] = json!({}), "names 's', which is not");
        let second = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
        check(|v| v["post_processor"]["single"] = second.clone(), "names a second text");
        let far = json!({"s": {"id": "s", "ids": [9], "tokens": ["s"]}});
        check(|v| v["post_processor"]["special_tokens"] = far.clone(), "not in the vocabulary");
        let bert = json!({"type": "BertProcessing", "sep": ["s", 0], "cls": ["x", 77]});
        check(|v| v["post_processor"] = bert.clone(), "gives 'x' an id");
        check(|v| v["decoder"] = json!({"type": "None such"}), "its 'decoder' is");
        check(|v| v["decoder"] = json!(7), "its 'decoder' is");
        let map = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        check(|v| v["normalizer"] = map.clone(), "its 'normalizer' is");
        check(|v| v["model"] = json!(null), "its 'model' is missing");
        check(|v| v["model"]["vocab"]["a"] = json!(4_000_000_000u32), "the id 4000000000");
    }

    #[test]
    fn replacements_cannot_grow_without_bound() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let many = |n| json!({"type": "Sequence", "normalizers": vec![double.clone(); n]});
        let mut value = good();
        value["normalizer"] = many(6);
        parse(&value.to_string()).unwrap();
        check(|v| v["normalizer"] = many(30), "1073741824 times as long");
        let nested = json!({"type": "Sequence", "normalizers": [many(4), many(4)]});
        check(|v| v["normalizer"] = nested.clone(), "256 times as long");
        let empty = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a".repeat(99)});
        check(|v| v["normalizer"] = empty.clone(), "100 times as long");
    }

    /// Patterns with look-around are tried for so many steps, then no more is found.
    #[test]
    fn a_pattern_that_tries_everything_comes_to_an_end() {
        let mut value = good();
        value["pre_tokenizer"] = json!({
            "type": "Split", "pattern": {"Regex": "(a|aa|a)+(?!a)(?=c)"},
            "behavior": "Isolated", "invert": false,
        });
        let pipeline = parse(&value.to_string()).unwrap();
        let text = "a".repeat(60) + "b";
        // One for each letter, but that the last two are one token.
        assert_eq!(caught(|| pipeline.encode(text.as_str(), false)).unwrap().len(), 60);
    }
}

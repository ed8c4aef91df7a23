//! What the JSON files beside a vocabulary say: `tokenizer_config.json`, `special_tokens_map.json`,
//! `added_tokens.json`, and the model's `config.json`. They count as they do for the classes of the
//! published library `transformers`.

use crate::error::{Error, Result};
use crate::text::text_file::read_text;
use crate::text::tokenizer::style::{SpecialToken, TokenizerStyle};
use serde_json::{Map, Value};
use std::path::Path;
use tokenizers::AddedToken;

/// Published files write "no limit" as lengths above this.
const NO_LIMIT: f64 = 1e7;

/// The JSON files beside a vocabulary.
#[derive(Clone, Default)]
pub(crate) struct Config {
    /// `tokenizer_config.json`.
    pub values: Value,
    /// `special_tokens_map.json`; it counts where `tokenizer_config.json` lists no added tokens.
    special: Value,
    /// `added_tokens.json`, likewise.
    added: Value,
    /// The model's `config.json`.
    model: Value,
}

impl Config {
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name| json_beside(dir, name).map(Option::unwrap_or_default);
        let values: Value = read("tokenizer_config.json")?;
        let lists = values.get("added_tokens_decoder").is_some();
        let legacy = |name| if lists { Ok(Value::Null) } else { read(name) };
        Ok(Self {
            special: legacy("special_tokens_map.json")?,
            added: legacy("added_tokens.json")?,
            model: read("config.json")?,
            values,
        })
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key).and_then(Value::as_bool)
    }

    /// The class of the tokenizer, as published.
    pub fn class(&self) -> Option<&str> {
        self.values.get("tokenizer_class").and_then(Value::as_str)
    }

    /// Whether the class is BERT's, whose normalizer is made of the configuration alone.
    pub fn is_bert_class(&self) -> bool {
        let class = self.class().unwrap_or_default();
        let class = class.strip_suffix("Fast").unwrap_or(class);
        ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"]
            .contains(&class)
    }

    fn special_value(&self, key: &str) -> Option<&Value> {
        self.special.get(key).or_else(|| self.values.get(key)).filter(|v| !v.is_null())
    }

    /// A special token, written as a string or as an object with `content`.
    pub fn token(&self, special: SpecialToken) -> Option<&str> {
        self.special_value(special.key()).and_then(content)
    }

    /// The tokens to add to a vocabulary, in the order in which new ones get ids: the lists by id,
    /// then the special tokens that have a name, then the others.
    ///
    /// Error: `InvalidData` for an entry that is no token.
    pub fn added_tokens(&self) -> Result<Vec<AddedToken>> {
        let mut all: Vec<(u64, AddedToken)> = Vec::new();
        if let Some(listed) = self.values.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, value) in listed {
                let id = id.parse().map_err(|_| odd("added_tokens_decoder", id))?;
                all.push((
                    id,
                    added(value, false).ok_or_else(|| odd("added_tokens_decoder", &id))?,
                ));
            }
        }
        for (text, id) in self.added.as_object().into_iter().flatten() {
            let id = id.as_u64().ok_or_else(|| odd("added_tokens.json", text))?;
            let is_special = self.special_texts().any(|t| t == text.as_str());
            all.push((id, AddedToken::from(text.as_str(), is_special)));
        }
        all.sort_by_key(|(id, _)| *id);
        let mut tokens: Vec<AddedToken> = all.into_iter().map(|(_, token)| token).collect();
        for value in self.special_values() {
            let Some(token) = added(value, true) else { continue };
            if !tokens.iter().any(|t| t.content == token.content) {
                tokens.push(token);
            }
        }
        Ok(tokens)
    }

    fn special_values(&self) -> impl Iterator<Item = &Value> {
        // The order of `transformers`.
        let named = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].into_iter();
        let named = named.filter_map(|name| self.special_value(&format!("{name}_token")));
        let more = ["additional_special_tokens", "extra_special_tokens"].into_iter();
        let more = more.filter_map(|key| self.special_value(key)?.as_array()).flatten();
        named.chain(more)
    }

    fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.special_values().filter_map(content)
    }

    /// The tokenizer's class and the model's type, in lower case; empty where missing.
    pub fn names(&self) -> [String; 2] {
        let model = self.model.get("model_type").and_then(Value::as_str);
        [self.class(), model].map(|name| name.unwrap_or_default().to_ascii_lowercase())
    }

    /// The style by class or model type, else by the special tokens in the vocabulary.
    pub fn style(&self, has: impl Fn(&str) -> bool) -> TokenizerStyle {
        for name in self.names() {
            if name.contains("roberta") {
                return TokenizerStyle::Roberta;
            }
            if name.contains("bert") {
                return TokenizerStyle::Bert;
            }
            if name.contains("gpt2") {
                return TokenizerStyle::Gpt2;
            }
        }
        if has("[CLS]") && has("[SEP]") {
            TokenizerStyle::Bert
        } else if has("<s>") && has("</s>") {
            TokenizerStyle::Roberta
        } else {
            TokenizerStyle::Gpt2
        }
    }

    /// The smaller of the lengths in the tokenizer's and the model's files. RoBERTa's positions
    /// begin after the pad token's id, so two fewer can be used.
    pub fn max_length(&self) -> Option<usize> {
        let number = |from: &Value, key: &str| from.get(key).and_then(Value::as_f64);
        let named = number(&self.values, "model_max_length").filter(|n| *n < NO_LIMIT);
        let positions = number(&self.model, "max_position_embeddings")
            .or_else(|| number(&self.model, "n_positions"));
        let roberta = self.names().iter().any(|n| n.contains("roberta"));
        let positions = positions.map(|n| if roberta { n - 2.0 } else { n });
        let smallest = named.into_iter().chain(positions).reduce(f64::min)?;
        (smallest >= 1.0).then_some(smallest as usize)
    }

    /// DistilBERT has no token types; other models of BERT's style do.
    pub fn token_types(&self, style: TokenizerStyle) -> bool {
        style == TokenizerStyle::Bert && !self.names().iter().any(|n| n.contains("distil"))
    }

    /// The keys of `tokenizer_config.json` without paths of the machine that wrote it.
    pub fn kept(&self) -> Map<String, Value> {
        let paths = ["name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file"];
        let all = self.values.as_object().cloned().unwrap_or_default();
        all.into_iter().filter(|(key, _)| !paths.contains(&key.as_str())).collect()
    }

    /// The keys of `special_tokens_map.json`, and those lists of further special tokens that
    /// `tokenizer_config.json` has.
    pub fn kept_special(&self) -> Map<String, Value> {
        let mut all = self.special.as_object().cloned().unwrap_or_default();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            if let Some(list) = self.values.get(key).filter(|v| v.is_array()) {
                all.entry(key).or_insert_with(|| list.clone());
            }
        }
        all
    }
}

fn odd(file: &str, entry: &dyn std::fmt::Display) -> Error {
    Error::data(format!("'{file}': the entry '{entry}' is not an id with a token"))
}

fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
}

/// A token to add, from a text or an object; a token with a role is special, whatever it says.
fn added(value: &Value, has_role: bool) -> Option<AddedToken> {
    let text = content(value)?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = has_role || flag("special").unwrap_or(false);
    Some(
        AddedToken::from(text, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

fn json_beside(dir: &Path, name: &str) -> Result<Option<Value>> {
    let path = dir.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(&path)?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::json(e).context(path.display()))
}

//! Reading and writing `config.json`; errors of reading name the key.

use std::path::Path;

use serde_json::{Map, Value};

use super::keys::{Activation, Architecture, GENERAL, Keys, ModelType};
use super::{Config, MAX_COUNT};
use crate::error::{Context, Error, Result};
use crate::file::{check_readable, foreign_kind};

impl Config {
    /// Reads `config.json`: the file itself or the directory that holds it.
    ///
    /// # Errors
    /// `NotFound`/`Io`; `InvalidData` for broken JSON, a missing or ill-typed key;
    /// `Unsupported` for a model type, activation or feature that cannot be built.
    pub fn read(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        if path.join("latest").is_file() && !file.exists() {
            return Err(Error::not_found(format!(
                "{}: no config.json, but a trainer's checkpoint; a model is read from the folder \
                 that it was saved to as a model",
                path.display()
            )));
        }
        check_readable(&file)?;
        let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
        let parse = || {
            if let Some(kind) = foreign_kind(&bytes) {
                return Err(Error::data(format!("the file is {kind}")));
            }
            let text = std::str::from_utf8(&bytes);
            Self::from_json(text.map_err(|e| {
                let at = e.valid_up_to();
                Error::data(format!("byte {at} is not UTF-8; is it a text file?")).with_source(e)
            })?)
        };
        parse().context(|| file.display().to_string())
    }

    /// Parses the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(Error::json)?;
        let Value::Object(map) = value else {
            return Err(Error::data("the configuration is not a JSON object"));
        };
        let config = Fields(&map).config()?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json` that the published libraries load.
    pub fn to_json(&self) -> String {
        let keys = Keys::of(self.architecture);
        let mut map = self.other.clone();
        // Weights go out as f32, whatever they came in as.
        for key in ["dtype", "torch_dtype"] {
            map.entry(key).and_modify(|dtype| *dtype = "float32".into());
        }
        let mut put = |key: &str, value: Value| {
            if !key.is_empty() {
                map.insert(key.to_owned(), value);
            }
        };
        put("model_type", self.model_type.clone().into());
        put("architectures", self.architectures.clone().into());
        put("vocab_size", self.vocab.into());
        put(keys.hidden, self.hidden.into());
        put(keys.layers, self.layers.into());
        put(keys.heads, self.heads.into());
        put(keys.intermediate, self.intermediate.into());
        put(keys.positions, self.positions.into());
        put(keys.type_vocab, self.type_vocab.into());
        put(keys.activation, self.activation.name().into());
        put(keys.embedding_dropout, self.embedding_dropout.into());
        put(keys.hidden_dropout, self.hidden_dropout.into());
        put(keys.attention_dropout, self.attention_dropout.into());
        put(keys.head_dropout, self.head_dropout.into());
        put(keys.norm_epsilon, self.norm_epsilon.into());
        put("initializer_range", self.initializer_range.into());
        put("pad_token_id", self.pad_token_id.into());
        put("tie_word_embeddings", self.tie_word_embeddings.into());
        if self.architecture == Architecture::Albert {
            put("embedding_size", self.embedding.into());
            put("num_hidden_groups", self.groups.into());
            put("inner_group_num", self.group_layers.into());
        }
        if self.architecture == Architecture::Gpt2 {
            put("scale_attn_weights", self.scale_attention.into());
            put("scale_attn_by_inverse_layer_idx", self.scale_by_inverse_layer.into());
        }
        if !self.labels.is_empty() {
            let by_id = self.labels.iter().enumerate();
            let id2label: Map<_, _> =
                by_id.clone().map(|(i, l)| (i.to_string(), Value::from(l.clone()))).collect();
            let label2id: Map<_, _> = by_id.map(|(i, l)| (l.clone(), Value::from(i))).collect();
            put("id2label", id2label.into());
            put("label2id", label2id.into());
        }
        format!("{:#}\n", Value::from(map))
    }
}

/// The entries of a configuration. `null` counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    /// The configuration; its sizes are not checked against each other yet.
    fn config(&self) -> Result<Config> {
        let name = self.text("model_type")?.ok_or_else(|| missing("model_type"))?;
        let kind = ModelType::find(name).ok_or_else(|| {
            let known = ModelType::ALL.map(|kind| kind.name).join(", ");
            Error::unsupported(format!("'model_type' is '{name}'; known are {known}"))
        })?;
        self.refuse_features()?;
        let keys = Keys::of(kind.architecture);
        let hidden = self.size(keys.hidden, "hidden_size")?;
        let intermediate = match kind.architecture {
            Architecture::Gpt2 => {
                self.count(keys.intermediate)?.unwrap_or(hidden.saturating_mul(4))
            }
            _ => self.size(keys.intermediate, "intermediate_size")?,
        };
        let activation = match self.text(keys.activation)? {
            Some(name) => Activation::parse(keys.activation, name)?,
            None => kind.activation,
        };
        let hidden_dropout = self.number(keys.hidden_dropout)?.unwrap_or(kind.dropout);
        let embedding_dropout = self.number(keys.embedding_dropout)?;
        let head_default = kind.head_dropout.unwrap_or(hidden_dropout);
        let albert = kind.architecture == Architecture::Albert;
        let embedding = if albert { self.count("embedding_size")?.unwrap_or(128) } else { hidden };
        let mut other = self.0.clone();
        let rewritten = GENERAL.into_iter().chain(["id2label", "label2id", "num_labels"]);
        rewritten.for_each(|key| drop(other.remove(key)));
        Ok(Config {
            model_type: name.to_owned(),
            architecture: kind.architecture,
            vocab: self.size("vocab_size", "vocab_size")?,
            hidden,
            embedding,
            groups: self.count("num_hidden_groups")?.unwrap_or(1),
            group_layers: self.count("inner_group_num")?.unwrap_or(1),
            layers: self.size(keys.layers, "num_hidden_layers")?,
            heads: self.size(keys.heads, "num_attention_heads")?,
            intermediate,
            positions: self.size(keys.positions, "max_position_embeddings")?,
            type_vocab: self.count(keys.type_vocab)?.unwrap_or(kind.type_vocab),
            activation,
            hidden_dropout,
            attention_dropout: self.number(keys.attention_dropout)?.unwrap_or(kind.dropout),
            embedding_dropout: match kind.architecture {
                Architecture::Gpt2 => embedding_dropout.unwrap_or(0.1),
                _ => hidden_dropout,
            },
            head_dropout: self.number(keys.head_dropout)?.unwrap_or(head_default),
            norm_epsilon: self.number(keys.norm_epsilon)?.unwrap_or(kind.norm_epsilon),
            initializer_range: self.number("initializer_range")?.unwrap_or(0.02),
            pad_token_id: match self.0.get("pad_token_id") {
                None => kind.pad_token_id,
                Some(_) => self.count("pad_token_id")?,
            },
            tie_word_embeddings: self.flag("tie_word_embeddings")?.unwrap_or(true),
            scale_attention: self.flag("scale_attn_weights")?.unwrap_or(true),
            scale_by_inverse_layer: self.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            architectures: self.texts("architectures")?,
            labels: self.labels()?,
            other,
        })
    }

    /// Features that would change the graph and are not built.
    fn refuse_features(&self) -> Result<()> {
        let position = self.text("position_embedding_type")?.unwrap_or("absolute");
        if position != "absolute" {
            return Err(Error::unsupported(format!(
                "'position_embedding_type' is '{position}'; only absolute is built"
            )));
        }
        for key in ["is_decoder", "add_cross_attention", "sinusoidal_pos_embds"] {
            if self.flag(key)?.unwrap_or(false) {
                return Err(Error::unsupported(format!("'{key}' is true; that is not built")));
            }
        }
        Ok(())
    }

    fn entry(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| ill_typed(key, value, "a whole number ≥ 0"))
    }

    /// A size under its own or its general name; it must be there.
    fn size(&self, key: &str, general: &str) -> Result<usize> {
        let found = self.count(key)?;
        let found = if found.is_some() { found } else { self.count(general)? };
        found.ok_or_else(|| missing(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| ill_typed(key, value, "a number"))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ill_typed(key, value, "true or false"))
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ill_typed(key, value, "a text"))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.entry(key) else { return Ok(Vec::new()) };
        let list = value.as_array().and_then(|list| {
            list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        list.ok_or_else(|| ill_typed(key, value, "a list of texts"))
    }

    /// `id2label` by index, or unnamed labels when only `num_labels` is given.
    fn labels(&self) -> Result<Vec<String>> {
        let Some(value) = self.entry("id2label") else {
            let n = self.count("num_labels")?.unwrap_or(0).min(MAX_COUNT + 1);
            return Ok((0..n).map(|i| format!("LABEL_{i}")).collect());
        };
        let map = value.as_object();
        let map = map.ok_or_else(|| ill_typed("id2label", value, "a map from index to label"))?;
        (0..map.len())
            .map(|i| {
                let label = map.get(&i.to_string()).and_then(Value::as_str);
                label.map(str::to_owned).ok_or_else(|| {
                    Error::data(format!("'id2label' has {} entries but no text for {i}", map.len()))
                })
            })
            .collect()
    }
}

fn missing(key: &str) -> Error {
    Error::data(format!("'{key}' is missing"))
}

fn ill_typed(key: &str, value: &Value, wanted: &str) -> Error {
    Error::data(format!("'{key}' is {value}, not {wanted}"))
}

//! Tokenizers from and to the files of published models.
//!
//! Read, in this order of preference: `tokenizer.json`; `vocab.txt` (WordPiece); `vocab.json`
//! with `merges.txt` (byte-level BPE). `tokenizer_config.json` beside them has the class,
//! lower-casing, special tokens and the greatest length. All of these are written.

use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::text::text_file::{at, lines, read_text};
use crate::text::tokenizer::pipeline::{assemble, word_piece};
use crate::text::tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::{Tokenizer, tokenizers_error};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{Model, ModelWrapper, Tokenizer as Pipeline};

/// Published files write "no limit" as lengths above this.
const NO_LIMIT: f64 = 1e7;

/// The JSON files beside a vocabulary.
#[derive(Default)]
struct Config {
    values: Value,
    model: Value,
}

impl Config {
    fn read(dir: &Path) -> Result<Self> {
        let values = json_beside(dir, "tokenizer_config.json")?.unwrap_or_default();
        let model = json_beside(dir, "config.json")?.unwrap_or_default();
        Ok(Self { values, model })
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key).and_then(Value::as_bool)
    }

    /// A special token, written as a string or as an object with `content`.
    fn token(&self, special: SpecialToken) -> Option<&str> {
        let value = self.values.get(special.key())?;
        value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
    }

    /// The tokenizer's class and the model's type, in lower case; empty where missing.
    fn names(&self) -> [String; 2] {
        let text = |from: &Value, key| from.get(key).and_then(Value::as_str).map(str::to_owned);
        [text(&self.values, "tokenizer_class"), text(&self.model, "model_type")]
            .map(|name| name.unwrap_or_default().to_ascii_lowercase())
    }

    /// The style by class or model type, else by the special tokens in the vocabulary.
    fn style(&self, has: impl Fn(&str) -> bool) -> TokenizerStyle {
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
    fn max_length(&self) -> Option<usize> {
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
    fn token_types(&self, style: TokenizerStyle) -> bool {
        style == TokenizerStyle::Bert && !self.names().iter().any(|n| n.contains("distil"))
    }
}

impl Tokenizer {
    /// Reads a tokenizer from a directory, or from one of its files.
    ///
    /// Errors: `NotFound` with the names of the files; `InvalidData` with the file when it is
    /// malformed or lacks a special token.
    pub fn load(path: &Path) -> Result<Self> {
        let (dir, file) = locate(path)?;
        let config = Config::read(&dir)?;
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let read = match () {
            () if name.ends_with(".txt") => read_word_piece(&file, &config),
            () if name == "vocab.json" => read_byte_level(&file, &config),
            () => read_pipeline(&file, &config),
        };
        let mut tokenizer = read.map_err(|e| {
            let known = e.message().starts_with(&file.display().to_string());
            if known { e } else { e.context(file.display()) }
        })?;
        for special in SpecialToken::ALL {
            let named = config.token(special).and_then(|t| tokenizer.pipeline.token_to_id(t));
            if named.is_some() {
                tokenizer.special_token_ids[special as usize] = named;
            }
        }
        tokenizer.max_length = config.max_length().unwrap_or(tokenizer.max_length);
        tokenizer.token_types = config.token_types(tokenizer.style);
        Ok(tokenizer)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and the
    /// vocabulary files into `dir`, which is created if missing. Hugging Face's libraries load
    /// them.
    ///
    /// Errors: `Io` with the path.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let model = self.pipeline.get_model();
        model.save(dir, None).map_err(|e| tokenizers_error(e).context(dir.display()))?;
        write(dir, "tokenizer.json", &self.to_json()?)?;
        let special_tokens = self.special_tokens_map();
        write(dir, "special_tokens_map.json", &format!("{special_tokens:#}\n"))?;
        write(dir, "tokenizer_config.json", &format!("{:#}\n", self.config_json(special_tokens)))
    }

    /// What [`Tokenizer::save`] writes as `tokenizer.json`.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut pipeline = self.pipeline.clone();
        pipeline.with_post_processor(self.post_processor.clone());
        pipeline.to_string(true).map_err(tokenizers_error)
    }

    fn special_tokens_map(&self) -> Value {
        let named = SpecialToken::ALL.into_iter().filter_map(|special| {
            let text = self.token(self.special_token_id(special)?)?;
            Some((special.key().to_owned(), Value::String(text)))
        });
        Value::Object(named.collect())
    }

    fn config_json(&self, mut config: Value) -> Value {
        let word_piece = matches!(self.pipeline.get_model(), ModelWrapper::WordPiece(_));
        let class = match (self.style, word_piece) {
            (TokenizerStyle::Bert, true) => "BertTokenizer",
            (TokenizerStyle::Gpt2, false) => "GPT2Tokenizer",
            (TokenizerStyle::Roberta, false) => "RobertaTokenizer",
            _ => "PreTrainedTokenizerFast",
        };
        config["tokenizer_class"] = json!(class);
        let model_inputs = ["input_ids", "token_type_ids", "attention_mask"];
        let skip = |name: &&str| self.token_types || *name != "token_type_ids";
        config["model_input_names"] =
            json!(model_inputs.into_iter().filter(skip).collect::<Vec<_>>());
        config["model_max_length"] = json!(self.max_length);
        if let Some(tokenizers::NormalizerWrapper::BertNormalizer(n)) =
            self.pipeline.get_normalizer()
        {
            config["do_lower_case"] = json!(n.lowercase);
            config["strip_accents"] = json!(n.strip_accents);
            config["tokenize_chinese_chars"] = json!(n.handle_chinese_chars);
        }
        if let Some(tokenizers::PreTokenizerWrapper::ByteLevel(b)) =
            self.pipeline.get_pre_tokenizer()
        {
            config["add_prefix_space"] = json!(b.add_prefix_space);
        }
        config
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io(&path, e)))
}

/// The directory of a tokenizer and the file to read first.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if path.is_file() {
        let dir = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let merges = path.file_name().is_some_and(|n| n == "merges.txt");
        let file = if merges { dir.join("vocab.json") } else { path.to_path_buf() };
        return Ok((dir, file));
    }
    let names = ["tokenizer.json", "vocab.txt", "vocab.json"];
    let found = names.iter().map(|n| path.join(n)).find(|p| p.is_file());
    let file = found.ok_or_else(|| {
        Error::not_found(format!(
            "{}: no tokenizer; looked for tokenizer.json, vocab.txt, vocab.json with merges.txt",
            path.display()
        ))
    })?;
    Ok((path.to_path_buf(), file))
}

fn json_beside(dir: &Path, name: &str) -> Result<Option<Value>> {
    let path = dir.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(&path)?;
    serde_json::from_str(&text).map(Some).map_err(|e| at(&path, e.line(), e))
}

fn read_pipeline(file: &Path, config: &Config) -> Result<Tokenizer> {
    let text = read_text(file)?;
    let pipeline: Pipeline = text.parse().map_err(tokenizers_error)?;
    let style = config.style(|token| pipeline.token_to_id(token).is_some());
    Tokenizer::from_pipeline(pipeline, style)
}

fn read_word_piece(file: &Path, config: &Config) -> Result<Tokenizer> {
    let text = read_text(file)?;
    let mut vocab = Vocab::default();
    for (line, token) in lines(&text) {
        let token = token.trim_end();
        if let Some(before) = vocab.insert(token.to_owned(), (line - 1) as u32) {
            let text = format!("token '{token}' is on line {} already", before + 1);
            return Err(at(file, line, text));
        }
    }
    let style = config.style(|token| vocab.contains_key(token));
    let model = word_piece(vocab, style)?.into();
    let lowercase = config.flag("do_lower_case").unwrap_or(true);
    assemble(model, style, TokenizerAlgorithm::WordPiece, lowercase, false)
}

fn read_byte_level(file: &Path, config: &Config) -> Result<Tokenizer> {
    let value: Value =
        serde_json::from_str(&read_text(file)?).map_err(|e| at(file, e.line(), e))?;
    let entries = value.as_object().ok_or_else(|| Error::data("not an object of tokens"))?;
    let mut vocab = Vocab::default();
    let mut taken = HashSet::with_capacity(entries.len());
    for (token, id) in entries {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.filter(|id| taken.insert(*id)).ok_or_else(|| {
            Error::data(format!("the id of token '{token}' is not an unused number"))
        })?;
        vocab.insert(token.clone(), id);
    }
    let merges = read_merges(&file.with_file_name("merges.txt"), &vocab)?;
    let style = config.style(|token| vocab.contains_key(token));
    let model = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(tokenizers_error)?;
    let space = config.flag("add_prefix_space").unwrap_or(false);
    assemble(model.into(), style, TokenizerAlgorithm::ByteLevelBpe, false, space)
}

fn read_merges(file: &Path, vocab: &Vocab) -> Result<Vec<(String, String)>> {
    let text = read_text(file)?;
    let mut merges = Vec::new();
    for (line, content) in lines(&text) {
        if content.is_empty() || (line == 1 && content.starts_with("#version")) {
            continue;
        }
        let pair = content.split_once(' ').filter(|(_, b)| !b.contains(' '));
        let (a, b) = pair.ok_or_else(|| at(file, line, "not two tokens"))?;
        for token in [a, b, &format!("{a}{b}")] {
            if !vocab.contains_key(token) {
                return Err(at(file, line, format!("'{token}' is not in the vocabulary")));
            }
        }
        merges.push((a.to_owned(), b.to_owned()));
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{TokenizerTrainOptions, Truncation};

    const TEXTS: [&str; 3] =
        ["A fine film, really fine.", "a bad film \u{e9}t\u{e9}", "fine bad film"];

    fn trained(style: TokenizerStyle) -> Tokenizer {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 300,
            model_max_length: 77,
            ..Default::default()
        };
        Tokenizer::train(&options, &TEXTS).unwrap()
    }

    fn ids(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
        let one =
            |t: &&str| tokenizer.encode(t, Some("film <mask> \u{1F600}"), 64, Truncation::Never);
        TEXTS.iter().map(|t| one(t).unwrap().ids).collect()
    }

    #[test]
    fn saved_files_load_as_the_same_tokenizer_from_each_file() {
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let tokenizer = trained(style);
            let dir = tempfile::tempdir().unwrap();
            tokenizer.save(dir.path()).unwrap();
            for way in ["dir", "file", "vocabulary"] {
                let file = dir.path().join("tokenizer.json");
                if way == "vocabulary" {
                    std::fs::remove_file(&file).unwrap();
                }
                let path = if way == "file" { file } else { dir.path().to_path_buf() };
                let again = Tokenizer::load(&path).unwrap();
                assert_eq!(again.style(), style, "{way}");
                assert_eq!(again.special_token_ids, tokenizer.special_token_ids, "{style:?} {way}");
                assert_eq!(again.vocab_size(), tokenizer.vocab_size());
                assert_eq!(again.model_max_length(), 77);
                assert_eq!(ids(&again), ids(&tokenizer), "{style:?} {way}");
            }
        }
    }

    #[test]
    fn model_config_limits_the_length_and_the_inputs() {
        let dir = tempfile::tempdir().unwrap();
        trained(TokenizerStyle::Bert).save(dir.path()).unwrap();
        let with = |config: &str| {
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            Tokenizer::load(dir.path()).unwrap()
        };
        let tokenizer = with("{\"max_position_embeddings\": 40, \"model_type\": \"bert\"}");
        assert_eq!(tokenizer.model_max_length(), 40);
        assert!(tokenizer.has_token_types());
        assert_eq!(with("{\"n_positions\": 1024}").model_max_length(), 77);
        assert!(!with("{\"model_type\": \"distilbert\"}").has_token_types());
        trained(TokenizerStyle::Roberta).save(dir.path()).unwrap();
        assert_eq!(with("{\"max_position_embeddings\": 66}").model_max_length(), 64);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |name: &str, content: &str| {
            std::fs::write(dir.path().join(name), content).unwrap();
            let e = Tokenizer::load(&dir.path().join(name)).unwrap_err();
            e.message().replace(&format!("{}/", dir.path().display()), "")
        };
        assert!(Tokenizer::load(dir.path()).unwrap_err().message().contains("looked for"));
        let e = fails("vocab.txt", "[PAD]\n[CLS]\n[SEP]\na\n");
        assert_eq!(e, "vocab.txt: the vocabulary lacks the unknown token '[UNK]'");
        assert_eq!(fails("vocab.txt", "a\nb\na\n"), "vocab.txt:3: token 'a' is on line 1 already");
        assert!(fails("tokenizer.json", "{").starts_with("tokenizer.json: tokenizer: "));
        std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\na c\n").unwrap();
        let e = fails("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
        assert_eq!(e, "vocab.json: merges.txt:3: 'c' is not in the vocabulary");
        assert!(fails("vocab.json", "{\"a\":0,\"b\":0}").contains("not an unused number"));
        std::fs::write(dir.path().join("merges.txt"), "").unwrap();
        let e = fails("vocab.json", "{\"<|endoftext|>\":0,\"b\":4000000000}");
        assert_eq!(e, "vocab.json: a token has the id 4000000000; at most 16777216");
    }
}

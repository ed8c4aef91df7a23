//! Tokenizers from and to the files of published models.
//!
//! Read, in this order of preference: `tokenizer.json`; `vocab.txt` (WordPiece); `vocab.json`
//! with `merges.txt` (byte-level BPE). `config.rs` has what counts beside them. All of these are
//! written.

use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::text::text_file::{at, lines, read_text};
use crate::text::tokenizer::check::{parse, tokenizers_error};
use crate::text::tokenizer::config::Config;
use crate::text::tokenizer::pipeline::{Settings, assemble, word_piece};
use crate::text::tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::Tokenizer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Pipeline,
};

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
        tokenizer.max_length = config.max_length().unwrap_or(tokenizer.max_length);
        tokenizer.token_types = config.token_types(tokenizer.style);
        tokenizer.config = config;
        Ok(tokenizer)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and the
    /// vocabulary files into `dir`, which is created if missing. Hugging Face's libraries load
    /// them.
    ///
    /// Errors: `Io` with the path.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| Error::create_folder(dir, e))?;
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
        let mut all = self.config.kept_special();
        for special in SpecialToken::ALL {
            let text = self.special_token_id(special).and_then(|id| self.token(id));
            match text {
                // What was read may say more than the text.
                Some(text) if self.config.token(special) != Some(&text) => {
                    all.insert(special.key().to_owned(), text.into());
                }
                Some(text) => drop(all.entry(special.key()).or_insert_with(|| text.into())),
                None => drop(all.remove(special.key())),
            }
        }
        Value::Object(all)
    }

    /// The class that was read, else the published one that makes this very pipeline.
    fn class(&self) -> String {
        if let Some(class) = self.config.class() {
            return class.to_owned();
        }
        let pipeline = &self.pipeline;
        let class = match (self.style, pipeline.get_model()) {
            (TokenizerStyle::Bert, ModelWrapper::WordPiece(_)) => {
                match (pipeline.get_normalizer(), pipeline.get_pre_tokenizer()) {
                    (
                        Some(NormalizerWrapper::BertNormalizer(_)),
                        Some(PreTokenizerWrapper::BertPreTokenizer(_)),
                    ) => "BertTokenizer",
                    _ => ANY_CLASS,
                }
            }
            (TokenizerStyle::Gpt2, ModelWrapper::BPE(_)) if is_byte_level(pipeline) => {
                "GPT2Tokenizer"
            }
            (TokenizerStyle::Roberta, ModelWrapper::BPE(_)) if is_byte_level(pipeline) => {
                "RobertaTokenizer"
            }
            _ => ANY_CLASS,
        };
        class.to_owned()
    }

    fn config_json(&self, special_tokens: Value) -> Value {
        let mut config = self.config.kept();
        for (key, value) in special_tokens.as_object().into_iter().flatten() {
            config.insert(key.clone(), value.clone());
        }
        let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        set("tokenizer_class", json!(self.class()));
        let model_inputs = ["input_ids", "token_type_ids", "attention_mask"];
        let skip = |name: &&str| self.token_types || *name != "token_type_ids";
        set("model_input_names", json!(model_inputs.into_iter().filter(skip).collect::<Vec<_>>()));
        set("model_max_length", json!(self.max_length));
        if let Some(NormalizerWrapper::BertNormalizer(n)) = self.pipeline.get_normalizer() {
            set("do_lower_case", json!(n.lowercase));
            set("strip_accents", json!(n.strip_accents));
            set("tokenize_chinese_chars", json!(n.handle_chinese_chars));
        }
        if let Some(PreTokenizerWrapper::ByteLevel(b)) = self.pipeline.get_pre_tokenizer() {
            set("add_prefix_space", json!(b.add_prefix_space));
        }
        let added: BTreeMap<u32, AddedToken> =
            self.pipeline.get_added_tokens_decoder().into_iter().collect();
        if !added.is_empty() {
            let one = |(id, token): (&u32, &AddedToken)| {
                let value = json!({
                    "content": token.content, "single_word": token.single_word,
                    "lstrip": token.lstrip, "rstrip": token.rstrip,
                    "normalized": token.normalized, "special": token.special,
                });
                (id.to_string(), value)
            };
            set("added_tokens_decoder", Value::Object(added.iter().map(one).collect()));
        }
        Value::Object(config)
    }
}

/// The class that reads any `tokenizer.json` as it is.
const ANY_CLASS: &str = "PreTrainedTokenizerFast";

/// Whether the published classes of byte-level BPE make this pipeline.
fn is_byte_level(pipeline: &Pipeline) -> bool {
    let ModelWrapper::BPE(model) = pipeline.get_model() else { return false };
    let plain = model.continuing_subword_prefix.as_ref().is_none_or(String::is_empty)
        && model.end_of_word_suffix.as_ref().is_none_or(String::is_empty)
        && !model.byte_fallback
        && !model.ignore_merges;
    let splits = matches!(
        pipeline.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(b)) if b.use_regex
    );
    plain && splits && pipeline.get_normalizer().is_none()
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io(&path, e)))
}

/// The directory of a tokenizer and the file to read first.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if path.is_file() {
        if path.extension().is_some_and(|e| e == "model") {
            return Err(refuse_sentence_piece(path));
        }
        let dir = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let merges = path.file_name().is_some_and(|n| n == "merges.txt");
        let file = if merges { dir.join("vocab.json") } else { path.to_path_buf() };
        return Ok((dir, file));
    }
    let names = ["tokenizer.json", "vocab.txt", "vocab.json"];
    let found = names.iter().map(|n| path.join(n)).find(|p| p.is_file());
    let foreign = || SENTENCE_PIECE.iter().map(|n| path.join(n)).find(|p| p.is_file());
    let file = found.ok_or_else(|| {
        if let Some(file) = foreign() {
            return refuse_sentence_piece(&file);
        }
        Error::not_found(format!(
            "{}: no tokenizer; looked for tokenizer.json, vocab.txt, vocab.json with merges.txt",
            path.display()
        ))
    })?;
    Ok((path.to_path_buf(), file))
}

/// SentencePiece's own files, by their names.
const SENTENCE_PIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.bpe.model"];

fn refuse_sentence_piece(file: &Path) -> Error {
    Error::unsupported(format!(
        "{}: SentencePiece models are not read; write a tokenizer.json from it, in Python: \
         AutoTokenizer.from_pretrained(directory).save_pretrained(directory)",
        file.display()
    ))
}

fn read_pipeline(file: &Path, config: &Config) -> Result<Tokenizer> {
    let mut pipeline = parse(&read_text(file)?)?;
    let style = config.style(|token| pipeline.token_to_id(token).is_some());
    // BERT's classes make the normalizer anew; what the file has of it does not count.
    let named = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];
    let named = named.iter().any(|key| config.values.get(key).is_some());
    if let Some(NormalizerWrapper::BertNormalizer(read)) = pipeline.get_normalizer()
        && (config.is_bert_class() || (named && style == TokenizerStyle::Bert))
    {
        let mut normalizer = *read;
        let ours = config.is_bert_class();
        let flag = |key, read: bool| config.flag(key).unwrap_or(if ours { true } else { read });
        normalizer.lowercase = flag("do_lower_case", read.lowercase);
        normalizer.handle_chinese_chars = flag("tokenize_chinese_chars", read.handle_chinese_chars);
        if ours || config.values.get("strip_accents").is_some() {
            normalizer.strip_accents = config.flag("strip_accents");
        }
        pipeline.with_normalizer(Some(normalizer)).map_err(tokenizers_error)?;
    }
    if let Some(PreTokenizerWrapper::ByteLevel(read)) = pipeline.get_pre_tokenizer()
        && let Some(space) = config.flag("add_prefix_space")
        && space != read.add_prefix_space
    {
        let changed = ByteLevel::new(space, read.trim_offsets, read.use_regex);
        pipeline.with_pre_tokenizer(Some(changed));
    }
    pipeline.add_tokens(config.added_tokens()?).map_err(tokenizers_error)?;
    Tokenizer::from_pipeline(pipeline, style, config)
}

fn read_word_piece(file: &Path, config: &Config) -> Result<Tokenizer> {
    let text = read_text(file)?;
    let mut vocab = Vocab::default();
    for (line, token) in lines(&text) {
        if let Some(before) = vocab.insert(token.to_owned(), (line - 1) as u32) {
            let text = format!("token '{token}' is on line {} already", before + 1);
            return Err(at(file, line, text));
        }
    }
    let style = config.style(|token| vocab.contains_key(token));
    let model = word_piece(vocab, style, config)?.into();
    let settings = Settings {
        lowercase: config.flag("do_lower_case").unwrap_or(true),
        strip_accents: config.flag("strip_accents"),
        split_chinese: config.flag("tokenize_chinese_chars").unwrap_or(true),
        ..Settings::new(style, TokenizerAlgorithm::WordPiece)
    };
    assemble(model, settings, config)
}

fn read_byte_level(file: &Path, config: &Config) -> Result<Tokenizer> {
    let value: Value = serde_json::from_str(&read_text(file)?).map_err(Error::json)?;
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
    let settings = Settings {
        add_prefix_space: config.flag("add_prefix_space").unwrap_or(false),
        ..Settings::new(style, TokenizerAlgorithm::ByteLevelBpe)
    };
    assemble(model.into(), settings, config)
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
        assert!(
            fails("tokenizer.json", "{").starts_with("tokenizer.json: the JSON ends too early")
        );
        std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\na c\n").unwrap();
        let e = fails("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
        assert_eq!(e, "vocab.json: merges.txt:3: 'c' is not in the vocabulary");
        assert!(fails("vocab.json", "{\"a\":0,\"b\":0}").contains("not an unused number"));
        std::fs::write(dir.path().join("merges.txt"), "").unwrap();
        let e = fails("vocab.json", "{\"<|endoftext|>\":0,\"b\":4000000000}");
        assert_eq!(e, "vocab.json: a token has the id 4000000000; at most 16777216");
    }
}

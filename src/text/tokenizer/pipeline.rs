//! The pipelines of each style: normalizer, pre-tokenizer, model, post-processor, decoder.

use crate::error::{Error, Result};
use crate::text::tokenizer::check::tokenizers_error;
use crate::text::tokenizer::config::Config;
use crate::text::tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::Tokenizer;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer as Pipeline,
};

/// Longer words are left out of training; WordPiece reads them as unknown.
pub(crate) const MAX_WORD_CHARS: usize = 100;

/// The WordPiece model over a vocabulary.
pub(crate) fn word_piece(
    vocab: Vocab,
    style: TokenizerStyle,
    config: &Config,
) -> Result<WordPiece> {
    let unk = config.token(SpecialToken::Unk).or(style.token(SpecialToken::Unk));
    let unk = unk.unwrap_or("[UNK]").to_owned();
    if !vocab.contains_key(&unk) {
        return Err(Error::data(format!("the vocabulary lacks the unknown token '{unk}'")));
    }
    WordPiece::builder()
        .vocab(vocab)
        .unk_token(unk)
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(tokenizers_error)
}

/// What a pipeline that is made of a vocabulary needs to know besides.
pub(crate) struct Settings {
    pub style: TokenizerStyle,
    pub algorithm: TokenizerAlgorithm,
    /// WordPiece: lower-case.
    pub lowercase: bool,
    /// WordPiece; `None`: as `lowercase`.
    pub strip_accents: Option<bool>,
    /// WordPiece: each Chinese character is a word.
    pub split_chinese: bool,
    /// Byte-level BPE: a space before a text that begins without one.
    pub add_prefix_space: bool,
}

impl Settings {
    pub fn new(style: TokenizerStyle, algorithm: TokenizerAlgorithm) -> Self {
        Self {
            style,
            algorithm,
            lowercase: true,
            strip_accents: None,
            split_chinese: true,
            add_prefix_space: false,
        }
    }

    /// BERT's normalizer for WordPiece; byte-level BPE takes text as it is.
    pub fn normalizer(&self) -> Option<NormalizerWrapper> {
        let bert =
            BertNormalizer::new(true, self.split_chinese, self.strip_accents, self.lowercase);
        (self.algorithm == TokenizerAlgorithm::WordPiece).then(|| bert.into())
    }
}

pub(crate) fn pre_tokenizer(
    algorithm: TokenizerAlgorithm,
    add_prefix_space: bool,
) -> PreTokenizerWrapper {
    match algorithm {
        TokenizerAlgorithm::WordPiece => BertPreTokenizer.into(),
        TokenizerAlgorithm::ByteLevelBpe => ByteLevel::new(add_prefix_space, true, true).into(),
    }
}

/// A tokenizer from a model with the normalizer, pre-tokenizer, post-processor and decoder of its
/// style, and the tokens that the configuration adds.
pub(crate) fn assemble(
    model: ModelWrapper,
    settings: Settings,
    config: &Config,
) -> Result<Tokenizer> {
    let Settings { style, algorithm, add_prefix_space, .. } = settings;
    let mut pipeline = Pipeline::new(model);
    pipeline.with_normalizer(settings.normalizer()).map_err(tokenizers_error)?;
    pipeline.with_pre_tokenizer(Some(pre_tokenizer(algorithm, add_prefix_space)));
    let decoder: DecoderWrapper = match algorithm {
        TokenizerAlgorithm::WordPiece => WordPieceDecoder::default().into(),
        TokenizerAlgorithm::ByteLevelBpe => ByteLevel::default().into(),
    };
    pipeline.with_decoder(Some(decoder));
    let named = config.added_tokens()?;
    let is_named = |t: &str| named.iter().any(|n| n.content == t);
    let known = style.special_tokens().iter();
    let known = known.filter(|t| pipeline.token_to_id(t).is_some() && !is_named(t));
    // RoBERTa's mask token includes the space before it, as in its published files.
    let special = |t: &str| AddedToken::from(t, true).lstrip(t == "<mask>");
    let known: Vec<AddedToken> = known.map(|t| special(t)).collect();
    pipeline.add_special_tokens(known).map_err(tokenizers_error)?;
    pipeline.add_tokens(named).map_err(tokenizers_error)?;
    let post_processor = post_processor(&pipeline, &settings, config)?;
    pipeline.with_post_processor(Some(post_processor));
    Tokenizer::from_pipeline(pipeline, style, config)
}

fn post_processor(
    pipeline: &Pipeline,
    settings: &Settings,
    config: &Config,
) -> Result<PostProcessorWrapper> {
    let &Settings { style, algorithm, add_prefix_space, .. } = settings;
    let token = |special| {
        let text = config.token(special).or(style.token(special)).unwrap_or_default();
        let id = pipeline.token_to_id(text).ok_or_else(|| {
            Error::data(format!("the vocabulary lacks the special token '{text}'"))
        })?;
        Ok::<_, Error>((text.to_owned(), id))
    };
    let trim = algorithm == TokenizerAlgorithm::ByteLevelBpe;
    Ok(match style {
        TokenizerStyle::Bert => {
            BertProcessing::new(token(SpecialToken::Sep)?, token(SpecialToken::Cls)?).into()
        }
        TokenizerStyle::Gpt2 => ByteLevel::new(add_prefix_space, false, true).into(),
        TokenizerStyle::Roberta => {
            RobertaProcessing::new(token(SpecialToken::Sep)?, token(SpecialToken::Cls)?)
                .trim_offsets(trim)
                .add_prefix_space(add_prefix_space)
                .into()
        }
    })
}

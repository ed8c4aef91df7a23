//! The pipelines of each style: normalizer, pre-tokenizer, model, post-processor, decoder.

use crate::error::{Error, Result};
use crate::text::tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::{Tokenizer, tokenizers_error};
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
pub(crate) fn word_piece(vocab: Vocab, style: TokenizerStyle) -> Result<WordPiece> {
    let unk = style.token(SpecialToken::Unk).unwrap_or("[UNK]").to_owned();
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

/// BERT's normalizer for WordPiece; byte-level BPE takes text as it is.
pub(crate) fn normalizer(
    algorithm: TokenizerAlgorithm,
    lowercase: bool,
) -> Option<NormalizerWrapper> {
    let bert = BertNormalizer::new(true, true, None, lowercase);
    (algorithm == TokenizerAlgorithm::WordPiece).then(|| bert.into())
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
/// style.
pub(crate) fn assemble(
    model: ModelWrapper,
    style: TokenizerStyle,
    algorithm: TokenizerAlgorithm,
    lowercase: bool,
    add_prefix_space: bool,
) -> Result<Tokenizer> {
    let mut pipeline = Pipeline::new(model);
    pipeline.with_normalizer(normalizer(algorithm, lowercase)).map_err(tokenizers_error)?;
    pipeline.with_pre_tokenizer(Some(pre_tokenizer(algorithm, add_prefix_space)));
    let decoder: DecoderWrapper = match algorithm {
        TokenizerAlgorithm::WordPiece => WordPieceDecoder::default().into(),
        TokenizerAlgorithm::ByteLevelBpe => ByteLevel::default().into(),
    };
    pipeline.with_decoder(Some(decoder));
    let known = style.special_tokens().iter().filter(|t| pipeline.token_to_id(t).is_some());
    // RoBERTa's mask token includes the space before it, as in its published files.
    let special = |t: &str| AddedToken::from(t, true).lstrip(t == "<mask>");
    let known: Vec<AddedToken> = known.map(|t| special(t)).collect();
    pipeline.add_special_tokens(known).map_err(tokenizers_error)?;
    let post_processor = post_processor(&pipeline, style, algorithm, add_prefix_space)?;
    pipeline.with_post_processor(Some(post_processor));
    Tokenizer::from_pipeline(pipeline, style)
}

fn post_processor(
    pipeline: &Pipeline,
    style: TokenizerStyle,
    algorithm: TokenizerAlgorithm,
    add_prefix_space: bool,
) -> Result<PostProcessorWrapper> {
    let token = |special| {
        let text = style.token(special).unwrap_or_default();
        let id = pipeline.token_to_id(text).ok_or_else(|| {
            Error::data(format!("the vocabulary lacks the special token '{text}'"))
        })?;
        Ok((text.to_owned(), id))
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

//! Tokens of all kinds of vocabularies in one form, so that they can be compared.

use std::collections::HashMap;
use std::sync::Arc;

use super::tokenize::Tokenizer;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{DecoderWrapper, ModelWrapper};

/// Marks a piece that begins a word, as SentencePiece does.
const WORD_START: char = '\u{2581}';

impl Tokenizer {
    /// The text of every id: `▁` (U+2581) in front of a piece that begins a word, nothing in front
    /// of one inside a word, whether the vocabulary writes `##x`, `Ġx` or `▁x`; bytes are decoded
    /// to UTF-8. Case is kept. Empty for ids without a token, and for bytes that are no whole
    /// character.
    pub fn pieces(&self) -> Arc<[String]> {
        self.pieces.get_or_init(|| self.make_pieces()).clone()
    }

    fn make_pieces(&self) -> Arc<[String]> {
        let bytes = byte_characters();
        let is_byte_level =
            matches!(self.pipeline.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let piece = |token: String| match self.pipeline.get_model() {
            ModelWrapper::WordPiece(model) => word_piece(model, &token),
            _ if is_byte_level => byte_level(&bytes, &token),
            _ => token,
        };
        let ids = 0..self.vocab_size();
        ids.map(|id| self.token(id as u32).map(piece).unwrap_or_default()).collect()
    }
}

fn word_piece(model: &WordPiece, token: &str) -> String {
    match token.strip_prefix(model.continuing_subword_prefix.as_str()) {
        Some(inside) => inside.to_owned(),
        None => format!("{WORD_START}{token}"),
    }
}

fn byte_level(bytes: &HashMap<char, u8>, token: &str) -> String {
    let decoded: Option<Vec<u8>> = token.chars().map(|c| bytes.get(&c).copied()).collect();
    let text = match decoded.map(String::from_utf8) {
        None => token.to_owned(),
        Some(decoded) => decoded.unwrap_or_default(),
    };
    match text.strip_prefix(' ') {
        Some(word) => format!("{WORD_START}{word}"),
        None => text,
    }
}

/// The byte of each character of byte-level vocabularies: printable characters of Latin-1 stand for
/// themselves, the other bytes for the characters from U+0100 (Radford et al. 2019).
fn byte_characters() -> HashMap<char, u8> {
    let mut next = 0x100;
    let character = |byte: u8| {
        if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..) {
            return (char::from(byte), byte);
        }
        next += 1;
        (char::from_u32(next - 1).unwrap_or_default(), byte)
    };
    (0..=u8::MAX).map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{TokenizerStyle, TokenizerTrainOptions};

    #[test]
    fn both_kinds_of_vocabularies_have_one_form() {
        let texts = ["low lower lowest newer newest wider naïve Éa"; 4];
        let pieces = |style, lowercase| {
            let options =
                TokenizerTrainOptions { style, vocab_size: 400, lowercase, ..Default::default() };
            let tokenizer = Tokenizer::train(&options, &texts).unwrap();
            let pieces = tokenizer.pieces();
            assert_eq!(pieces.len(), tokenizer.vocab_size());
            (tokenizer, pieces)
        };
        let has = |pieces: &[String], wanted: &str| pieces.iter().any(|p| p == wanted);
        let (bert, word) = pieces(TokenizerStyle::Bert, true);
        for (id, piece) in word.iter().enumerate() {
            let token = bert.token(id as u32).unwrap();
            let inside = token.strip_prefix("##").map(str::to_owned);
            assert_eq!(*piece, inside.unwrap_or(format!("▁{token}")));
        }
        let (gpt2, bytes) = pieces(TokenizerStyle::Gpt2, false);
        let id = bytes.iter().position(|p| p == "▁lowest").unwrap();
        assert_eq!(gpt2.token(id as u32).unwrap(), "Ġlowest");
        assert!(has(&bytes, "▁naïve") && has(&bytes, "low") && has(&word, "▁lowest"));
        let id = bytes.iter().position(|p| p == "<|endoftext|>").unwrap();
        assert_eq!(gpt2.token(id as u32).unwrap(), "<|endoftext|>");
        // A byte that begins a character of several is no text.
        let first = gpt2.pipeline.token_to_id("Ã").unwrap();
        assert_eq!(bytes[first as usize], "");
    }
}

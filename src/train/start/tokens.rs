//! What a model's token ids stand for, and which rows of two token tables belong together.

use std::collections::HashMap;

/// Marks a piece that begins a word, as SentencePiece writes it.
const WORD_START: char = '\u{2581}';

/// Longer tokens are not put together from others.
const MAX_COMPOSED: usize = 64;

/// The text of every token id of a model. Vocabularies of different kinds are compared by it, so
/// all are written in one way: a piece that begins a word has `▁` (U+2581) in front, one inside a
/// word is bare, and bytes are decoded to UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// By id; empty where an id has no text of its own.
    pub pieces: Vec<String>,
    /// Pads short sequences.
    pub pad: Option<usize>,
    /// Stands for unknown words.
    pub unknown: Option<usize>,
    /// Begins a sequence (`[CLS]`, `<s>`).
    pub first: Option<usize>,
    /// Ends a sequence (`[SEP]`, `</s>`).
    pub last: Option<usize>,
    /// Replaces a masked token.
    pub mask: Option<usize>,
}

/// Where a row of a fresh table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowSource {
    /// A row of the source, for the same text or the same special token.
    Copied(usize),
    /// The mean of the rows whose texts follow each other in the token's.
    Composed(Vec<usize>),
    /// Nothing: it stays as it was drawn.
    Fresh,
}

impl Tokens {
    /// The special tokens; an id with several roles has the first of them.
    fn special(&self) -> [Option<usize>; 5] {
        [self.last, self.first, self.mask, self.unknown, self.pad]
    }

    /// A text for each id that is equal in all vocabularies that have the token; empty where an id
    /// has none, and for padding, which learns nothing.
    pub(in crate::train) fn common_texts(&self) -> Vec<String> {
        let names = ["last", "first", "mask", "unknown", ""];
        let roles: Vec<_> = self.special().into_iter().zip(names).collect();
        let text = |(id, piece): (usize, &String)| {
            if let Some((_, name)) = roles.iter().find(|(at, _)| *at == Some(id)) {
                // No piece begins so.
                return if name.is_empty() { String::new() } else { format!("\0{name}") };
            }
            match split(piece) {
                (_, "") => String::new(),
                (true, text) => format!("{WORD_START}{text}"),
                (false, text) => text.to_owned(),
            }
        };
        self.pieces.iter().enumerate().map(text).collect()
    }

    fn is_lowercase(&self) -> bool {
        let special = self.special();
        let plain = self.pieces.iter().enumerate().filter(|(i, _)| !special.contains(&Some(*i)));
        // Unused and additional tokens stand in brackets, often in capitals.
        let mut plain = plain.filter(|(_, p)| !split(p).1.starts_with(['[', '<']));
        !plain.any(|(_, p)| p.chars().any(char::is_uppercase))
    }
}

/// Whether a piece begins a word, and its text. For punctuation it does not matter whether a space
/// comes first: kinds of vocabularies differ in it.
fn split(piece: &str) -> (bool, &str) {
    match piece.strip_prefix(WORD_START) {
        Some(text) => (text.contains(char::is_alphanumeric), text),
        None => (false, piece),
    }
}

/// Pieces of a vocabulary by their text.
struct Index<'a> {
    exact: HashMap<(bool, &'a str), usize>,
    /// In lower case; only when one of the two vocabularies has no other.
    lower: Option<HashMap<(bool, String), usize>>,
}

impl<'a> Index<'a> {
    fn new(tokens: &'a Tokens, any_case: bool) -> Self {
        let special = tokens.special();
        let pieces = tokens.pieces.iter().enumerate();
        let pieces = pieces
            .filter(|(id, _)| !special.contains(&Some(*id)))
            .map(|(id, piece)| (split(piece), id))
            .filter(|((_, text), _)| !text.is_empty());
        let mut exact = HashMap::new();
        let mut lower = any_case.then(HashMap::new);
        for ((starts, text), id) in pieces {
            // Of several the first: ids of frequent tokens are small.
            exact.entry((starts, text)).or_insert(id);
            if let Some(lower) = &mut lower {
                lower.entry((starts, text.to_lowercase())).or_insert(id);
            }
        }
        Self { exact, lower }
    }

    fn find(&self, starts: bool, text: &str) -> Option<usize> {
        let lower = || self.lower.as_ref()?.get(&(starts, text.to_lowercase())).copied();
        self.exact.get(&(starts, text)).copied().or_else(lower)
    }

    /// The longest known pieces from the left, if they make up the whole text.
    fn compose(&self, starts: bool, text: &str) -> Option<Vec<usize>> {
        if text.chars().count() > MAX_COMPOSED {
            return None;
        }
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(i, c)| i + c.len_utf8()).rev();
            let known =
                |end: usize| Some((self.find(starts && ids.is_empty(), &rest[..end])?, end));
            let (id, end) = ends.filter_map(known).next()?;
            ids.push(id);
            rest = &rest[end..];
        }
        Some(ids)
    }
}

/// Where each row of a table of `target`'s tokens comes from in a table of `source`'s.
pub(super) fn row_sources(source: &Tokens, target: &Tokens) -> Vec<RowSource> {
    let index = Index::new(source, source.is_lowercase() || target.is_lowercase());
    let special: Vec<_> = target.special().into_iter().zip(source.special()).collect();
    let row = |(id, piece): (usize, &String)| {
        let mut roles = special.iter().filter(|(t, _)| *t == Some(id)).peekable();
        if roles.peek().is_some() {
            let from = roles.find_map(|(_, s)| *s);
            return from.map_or(RowSource::Fresh, RowSource::Copied);
        }
        let (starts, text) = split(piece);
        if text.is_empty() {
            return RowSource::Fresh;
        }
        // The first word of a text has no space before it in byte-level vocabularies.
        let found = index.find(starts, text).or_else(|| index.find(!starts, text));
        match found {
            Some(id) => RowSource::Copied(id),
            None => index.compose(starts, text).map_or(RowSource::Fresh, RowSource::Composed),
        }
    };
    target.pieces.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::RowSource::{Composed, Copied, Fresh};
    use super::*;

    fn tokens(pieces: &[&str]) -> Tokens {
        Tokens { pieces: pieces.iter().map(|p| (*p).to_owned()).collect(), ..Tokens::default() }
    }

    #[test]
    fn rows_belong_together_by_text_and_role() {
        let bert = Tokens {
            pad: Some(0),
            unknown: Some(1),
            first: Some(2),
            last: Some(3),
            mask: Some(4),
            ..tokens(&[
                "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁good", "▁,", "ness", "▁play", "er",
                "▁ing", "▁the",
            ])
        };
        let end = Some(0);
        let gpt2 = Tokens {
            pad: end,
            unknown: end,
            first: end,
            last: end,
            ..tokens(&[
                "<|endoftext|>",
                "▁good",
                ",",
                "ness",
                "▁Player",
                "The",
                "ing",
                "▁xyz",
                "",
                "▁",
                "▁goodness",
            ])
        };
        assert_eq!(
            row_sources(&bert, &gpt2),
            [
                Copied(3),
                Copied(5),
                Copied(6),
                Copied(7),
                Composed(vec![8, 9]),
                Copied(11),
                Copied(10),
                Fresh,
                Fresh,
                Fresh,
                Composed(vec![5, 7]),
            ]
        );
        let back = row_sources(&gpt2, &bert);
        assert_eq!(
            back[..7],
            [0, 0, 0, 0]
                .map(Copied)
                .into_iter()
                .chain([Fresh, Copied(1), Copied(2)])
                .collect::<Vec<_>>()[..]
        );
        assert_eq!(back[11], Copied(5));
        assert_eq!(row_sources(&bert, &bert), (0..12).map(Copied).collect::<Vec<_>>());
    }

    #[test]
    fn case_is_kept_between_vocabularies_that_have_both() {
        let cased = tokens(&["▁Paris", "▁paris", "▁Rome"]);
        let other = tokens(&["▁paris", "▁rome", "▁Rome"]);
        assert_eq!(row_sources(&cased, &other), [Copied(1), Fresh, Copied(2)]);
        let lower = tokens(&["▁rome"]);
        assert_eq!(row_sources(&cased, &lower), [Copied(2)]);
        assert_eq!(row_sources(&lower, &cased), [Fresh, Fresh, Copied(0)]);
    }
}

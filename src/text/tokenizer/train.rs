//! Vocabularies learned from a corpus by byte-pair merging, the same on every machine.
//!
//! A word is a sequence of symbols. The most frequent adjacent pair of symbols over all words
//! (ties: the pair of lower ids) becomes a new symbol, until the vocabulary is full or no pair
//! is frequent enough (Sennrich, Haddow & Birch 2016). WordPiece vocabularies are learned in
//! the same way, with `##` before symbols inside words; only the cutting of words differs.

use crate::error::{Error, Result};
use crate::text::tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::{Tokenizer, foreign};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper,
    OffsetReferential, OffsetType, PostProcessorWrapper, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, Tokenizer as Pipeline,
};

/// Longer words are left out of learning; WordPiece reads them as unknown.
const MAX_WORD_CHARS: usize = 100;
/// Most frequent characters that a WordPiece vocabulary keeps.
const MAX_ALPHABET: usize = 1000;

/// How a vocabulary is learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerTrainOptions {
    /// Special tokens and framing. Default: BERT.
    pub style: TokenizerStyle,
    /// How words are cut; `None` (default) is what the style's published models use.
    pub kind: Option<TokenizerAlgorithm>,
    /// Greatest number of ids, special tokens included. Default: 8000. Byte-level vocabularies
    /// need at least 256 and their special tokens.
    pub vocab_size: usize,
    /// A pair is merged only if it occurs this often. Default: 2.
    pub min_frequency: u64,
    /// Lower-case and strip accents first (WordPiece only). Default: true.
    pub lowercase: bool,
    /// What the saved files name as greatest length, in tokens. Default: 512.
    pub model_max_length: usize,
}

impl Default for TokenizerTrainOptions {
    fn default() -> Self {
        Self {
            style: TokenizerStyle::Bert,
            kind: None,
            vocab_size: 8000,
            min_frequency: 2,
            lowercase: true,
            model_max_length: 512,
        }
    }
}

impl Tokenizer {
    /// Learns a vocabulary from texts. The result depends on the texts and options alone, not
    /// on threads, runs or the order of the texts.
    ///
    /// Errors: `InvalidArgument` when there is no text, or `vocab_size` is too small for the
    /// special tokens and the alphabet; the message names the least size.
    pub fn train<S: AsRef<str> + Sync>(
        options: &TokenizerTrainOptions,
        texts: &[S],
    ) -> Result<Self> {
        let kind = options.kind.unwrap_or(options.style.default_algorithm());
        let counts = count_words(kind, options.lowercase, texts)?;
        if counts.is_empty() {
            return Err(Error::invalid("a vocabulary needs some text to be learned from"));
        }
        let prefix = if kind == TokenizerAlgorithm::WordPiece { "##" } else { "" };
        let learned = Learner::new(options, kind, &counts, prefix)?.run(options, prefix);
        let model: ModelWrapper = match kind {
            TokenizerAlgorithm::WordPiece => word_piece(learned.vocab(), options.style)?.into(),
            TokenizerAlgorithm::ByteLevelBpe => BPE::builder()
                .vocab_and_merges(learned.vocab(), learned.merges())
                .build()
                .map_err(foreign)?
                .into(),
        };
        let mut tokenizer = assemble(model, options.style, kind, options.lowercase, false)?;
        tokenizer.max_length = options.model_max_length;
        Ok(tokenizer)
    }
}

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
        .map_err(foreign)
}

/// The BERT normaliser of WordPiece; byte-level models take text as it is.
fn normalizer(kind: TokenizerAlgorithm, lowercase: bool) -> Option<NormalizerWrapper> {
    let bert = BertNormalizer::new(true, true, None, lowercase);
    (kind == TokenizerAlgorithm::WordPiece).then(|| bert.into())
}

fn pre_tokenizer(kind: TokenizerAlgorithm, add_prefix_space: bool) -> PreTokenizerWrapper {
    match kind {
        TokenizerAlgorithm::WordPiece => BertPreTokenizer.into(),
        TokenizerAlgorithm::ByteLevelBpe => ByteLevel::new(add_prefix_space, true, true).into(),
    }
}

/// Puts normaliser, cutting, framing and decoder around a model.
pub(crate) fn assemble(
    model: ModelWrapper,
    style: TokenizerStyle,
    kind: TokenizerAlgorithm,
    lowercase: bool,
    add_prefix_space: bool,
) -> Result<Tokenizer> {
    let mut pipeline = Pipeline::new(model);
    pipeline.with_normalizer(normalizer(kind, lowercase)).map_err(foreign)?;
    pipeline.with_pre_tokenizer(Some(pre_tokenizer(kind, add_prefix_space)));
    let decoder: DecoderWrapper = match kind {
        TokenizerAlgorithm::WordPiece => WordPieceDecoder::default().into(),
        TokenizerAlgorithm::ByteLevelBpe => ByteLevel::default().into(),
    };
    pipeline.with_decoder(Some(decoder));
    let known = style.specials().iter().filter(|t| pipeline.token_to_id(t).is_some());
    // RoBERTa's mask takes the space before it, as its published files say.
    let special = |t: &str| AddedToken::from(t, true).lstrip(t == "<mask>");
    let known: Vec<AddedToken> = known.map(|t| special(t)).collect();
    pipeline.add_special_tokens(known).map_err(foreign)?;
    let framing = framing(&pipeline, style, kind, add_prefix_space)?;
    pipeline.with_post_processor(Some(framing));
    Tokenizer::from_pipeline(pipeline, style)
}

fn framing(
    pipeline: &Pipeline,
    style: TokenizerStyle,
    kind: TokenizerAlgorithm,
    add_prefix_space: bool,
) -> Result<PostProcessorWrapper> {
    let token = |special| {
        let text = style.token(special).unwrap_or_default();
        let id = pipeline.token_to_id(text).ok_or_else(|| {
            Error::data(format!("the vocabulary lacks the special token '{text}'"))
        })?;
        Ok((text.to_owned(), id))
    };
    let trim = kind == TokenizerAlgorithm::ByteLevelBpe;
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

type Counts = BTreeMap<String, u64>;

/// Words with their counts, in order of their bytes.
fn count_words<S: AsRef<str> + Sync>(
    kind: TokenizerAlgorithm,
    lowercase: bool,
    texts: &[S],
) -> Result<Counts> {
    let normalizer = normalizer(kind, lowercase);
    let cutter = pre_tokenizer(kind, false);
    let count = |mut counts: HashMap<String, u64>, text: &S| {
        let mut text = NormalizedString::from(text.as_ref());
        if let Some(normalizer) = &normalizer {
            normalizer.normalize(&mut text).map_err(foreign)?;
        }
        let mut pieces = PreTokenizedString::from(text);
        cutter.pre_tokenize(&mut pieces).map_err(foreign)?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            if word.chars().count() > MAX_WORD_CHARS {
                continue;
            }
            match counts.get_mut(word) {
                Some(n) => *n += 1,
                None => drop(counts.insert(word.to_owned(), 1)),
            }
        }
        Ok::<_, Error>(counts)
    };
    let parts = texts.par_iter().try_fold(HashMap::new, count);
    let merge = |mut a: HashMap<String, u64>, b: HashMap<String, u64>| {
        b.into_iter().for_each(|(word, n)| *a.entry(word).or_default() += n);
        Ok(a)
    };
    Ok(parts.try_reduce(HashMap::new, merge)?.into_iter().collect())
}

type Pair = (u32, u32);

/// The state of learning: words as symbols, and how often each pair of symbols occurs.
struct Learner {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<(Vec<u32>, u64)>,
    pairs: HashMap<Pair, u64>,
    places: HashMap<Pair, Vec<u32>>,
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    merges: Vec<Pair>,
}

impl Learner {
    fn new(
        options: &TokenizerTrainOptions,
        kind: TokenizerAlgorithm,
        counts: &Counts,
        prefix: &str,
    ) -> Result<Self> {
        let mut learner = Self {
            tokens: Vec::new(),
            ids: HashMap::new(),
            words: Vec::with_capacity(counts.len()),
            pairs: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
            merges: Vec::new(),
        };
        for token in options.style.specials() {
            learner.add((*token).to_owned());
        }
        if options.style == TokenizerStyle::Gpt2 && kind == TokenizerAlgorithm::WordPiece {
            return Err(Error::unsupported(
                "WordPiece with GPT-2's special tokens: it has none \
                for unknown words; use byte-level BPE",
            ));
        }
        let alphabet = alphabet(kind, counts);
        for c in &alphabet {
            learner.add(c.to_string());
        }
        let known: HashSet<char> = alphabet.into_iter().collect();
        let inner: BTreeSet<char> = counts.keys().flat_map(|w| w.chars().skip(1)).collect();
        if !prefix.is_empty() {
            for c in inner.iter().filter(|c| known.contains(c)) {
                learner.add(format!("{prefix}{c}"));
            }
        }
        if options.vocab_size < learner.tokens.len() {
            return Err(Error::invalid(format!(
                "vocab_size {} is less than the {} special tokens and characters",
                options.vocab_size,
                learner.tokens.len()
            )));
        }
        learner.read_words(counts, &known, prefix);
        Ok(learner)
    }

    /// The id of a token, new or known.
    fn add(&mut self, token: String) -> u32 {
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(token.clone()).or_insert(next);
        if id == next {
            self.tokens.push(token);
        }
        id
    }

    fn read_words(&mut self, counts: &Counts, known: &HashSet<char>, prefix: &str) {
        for (word, &count) in counts {
            if !word.chars().all(|c| known.contains(&c)) {
                continue;
            }
            let token = |(i, c): (usize, char)| {
                if i == 0 { c.to_string() } else { format!("{prefix}{c}") }
            };
            let symbols = word.chars().enumerate().map(|ic| self.ids[&token(ic)]).collect();
            self.words.push((symbols, count));
        }
        for (place, (symbols, count)) in self.words.iter().enumerate() {
            for pair in symbols.windows(2).map(|w| (w[0], w[1])) {
                *self.pairs.entry(pair).or_default() += count;
                note(self.places.entry(pair).or_default(), place as u32);
            }
        }
        self.queue = self.pairs.iter().map(|(&pair, &n)| (n, Reverse(pair))).collect();
    }

    fn run(mut self, options: &TokenizerTrainOptions, prefix: &str) -> Self {
        let mut done = HashSet::new();
        while self.tokens.len() < options.vocab_size {
            let Some((count, Reverse(pair))) = self.queue.pop() else { break };
            let now = self.pairs.get(&pair).copied().unwrap_or(0);
            if now != count {
                // Stale: the pair lost occurrences since it was queued.
                if now > 0 && now < count {
                    self.queue.push((now, Reverse(pair)));
                }
                continue;
            }
            if count < options.min_frequency.max(1) {
                break;
            }
            if done.insert(pair) {
                self.merge(pair, prefix);
            }
        }
        self
    }

    /// Makes the pair a symbol of its own in every word.
    fn merge(&mut self, pair: Pair, prefix: &str) {
        let right = &self.tokens[pair.1 as usize];
        let right = right.strip_prefix(prefix).unwrap_or(right);
        let merged = format!("{}{right}", self.tokens[pair.0 as usize]);
        let id = self.add(merged);
        self.merges.push(pair);
        let mut grown = BTreeSet::new();
        for place in self.places.remove(&pair).unwrap_or_default() {
            let (symbols, count) = &mut self.words[place as usize];
            for old in symbols.windows(2).map(|w| (w[0], w[1])) {
                if let Some(n) = self.pairs.get_mut(&old) {
                    *n -= *count;
                }
            }
            replace(symbols, pair, id);
            for new in symbols.windows(2).map(|w| (w[0], w[1])) {
                *self.pairs.entry(new).or_default() += *count;
                if new.0 == id || new.1 == id {
                    note(self.places.entry(new).or_default(), place);
                    grown.insert(new);
                }
            }
        }
        for new in grown {
            self.queue.push((self.pairs[&new], Reverse(new)));
        }
    }

    fn vocab(&self) -> Vocab {
        self.ids.iter().map(|(token, &id)| (token.clone(), id)).collect()
    }

    fn merges(&self) -> Vec<(String, String)> {
        let text = |id: u32| self.tokens[id as usize].clone();
        self.merges.iter().map(|&(a, b)| (text(a), text(b))).collect()
    }
}

/// Remembers a place once; places come in ascending order.
fn note(places: &mut Vec<u32>, place: u32) {
    if places.last() != Some(&place) {
        places.push(place);
    }
}

/// Replaces each occurrence of the pair by one symbol, from the left.
fn replace(symbols: &mut Vec<u32>, pair: Pair, id: u32) {
    let (mut from, mut to) = (0, 0);
    while from < symbols.len() {
        let hit = symbols[from] == pair.0 && symbols.get(from + 1) == Some(&pair.1);
        symbols[to] = if hit { id } else { symbols[from] };
        from += 1 + usize::from(hit);
        to += 1;
    }
    symbols.truncate(to);
}

/// The characters that become tokens, in their order.
fn alphabet(kind: TokenizerAlgorithm, counts: &Counts) -> BTreeSet<char> {
    if kind == TokenizerAlgorithm::ByteLevelBpe {
        return ByteLevel::alphabet().into_iter().collect();
    }
    let mut by_char: BTreeMap<char, u64> = BTreeMap::new();
    for (word, n) in counts {
        word.chars().for_each(|c| *by_char.entry(c).or_default() += n);
    }
    let mut ranked: Vec<(Reverse<u64>, char)> =
        by_char.into_iter().map(|(c, n)| (Reverse(n), c)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(MAX_ALPHABET).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = [
        "the lowest of the low, the newest of the new",
        "Lower, lower! The newer one is lower than the wider one.",
        "widest and newest \u{1F600} caf\u{e9}s",
        "the the the banana bananas aaaa aaaa",
    ];

    fn learn(style: TokenizerStyle, kind: TokenizerAlgorithm, vocab_size: usize) -> Tokenizer {
        let kind = Some(kind);
        let options = TokenizerTrainOptions { style, kind, vocab_size, ..Default::default() };
        Tokenizer::train(&options, &TEXTS).unwrap()
    }

    /// Merges by recounting everything each time: the definition, without bookkeeping.
    fn naive(words: &[(Vec<String>, u64)], n: usize, order: &[String]) -> Vec<(String, String)> {
        let mut ids: Vec<String> = order.to_vec();
        let mut words = words.to_vec();
        let mut merges = Vec::new();
        for _ in 0..n {
            let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            let at = |ids: &[String], s: &String| ids.iter().position(|t| t == s).unwrap();
            for (symbols, count) in &words {
                for w in symbols.windows(2) {
                    *counts.entry((at(&ids, &w[0]), at(&ids, &w[1]))).or_default() += count;
                }
            }
            let best = counts.iter().max_by_key(|(pair, n)| (**n, Reverse(**pair))).unwrap();
            let (a, b) = (ids[best.0.0].clone(), ids[best.0.1].clone());
            let merged = format!("{a}{b}");
            for (symbols, _) in &mut words {
                let mut out: Vec<String> = Vec::new();
                let mut i = 0;
                while i < symbols.len() {
                    let hit = symbols[i] == a && symbols.get(i + 1) == Some(&b);
                    out.push(if hit { merged.clone() } else { symbols[i].clone() });
                    i += 1 + usize::from(hit);
                }
                *symbols = out;
            }
            if !ids.contains(&merged) {
                ids.push(merged);
            }
            merges.push((a, b));
        }
        merges
    }

    #[test]
    fn merges_follow_the_definition() {
        let options = TokenizerTrainOptions {
            style: TokenizerStyle::Gpt2,
            vocab_size: 257 + 60,
            min_frequency: 1,
            ..Default::default()
        };
        // Few letters in many words: pairs overlap, gain and lose occurrences all the time.
        let word = |i: usize| (0..9).map(|k| ['a', 'b', 'c'][((i * 7919) >> k) % 3]).collect();
        let letters: Vec<String> = (0..200).map(word).collect();
        let plain: Vec<String> = TEXTS.map(str::to_owned).to_vec();
        for texts in [plain, letters] {
            let counts = count_words(TokenizerAlgorithm::ByteLevelBpe, true, &texts).unwrap();
            let learner =
                Learner::new(&options, TokenizerAlgorithm::ByteLevelBpe, &counts, "").unwrap();
            let order = learner.tokens.clone();
            let merges = learner.run(&options, "").merges();
            let words: Vec<_> = counts
                .iter()
                .map(|(w, n)| (w.chars().map(String::from).collect::<Vec<_>>(), *n))
                .collect();
            assert!(merges.len() > 30);
            assert_eq!(merges, naive(&words, merges.len(), &order));
        }
    }

    #[test]
    fn same_result_for_any_thread_count_and_order_of_texts() {
        let many: Vec<String> =
            (0..300).map(|i| format!("{} w{} {}", TEXTS[i % 4], i % 37, i % 11)).collect();
        let mut back = many.clone();
        back.reverse();
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let options = TokenizerTrainOptions { style, vocab_size: 400, ..Default::default() };
            let text = |texts: &[String], threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let t = pool.install(|| Tokenizer::train(&options, texts)).unwrap();
                t.pipeline.to_string(false).unwrap()
            };
            let one = text(&many, 1);
            assert_eq!(one, text(&many, 3));
            assert_eq!(one, text(&back, 2));
        }
    }

    #[test]
    fn size_and_special_ids() {
        let bert = learn(TokenizerStyle::Bert, TokenizerAlgorithm::WordPiece, 90);
        assert!(bert.vocab_size() <= 90 && bert.vocab_size() > 53, "{}", bert.vocab_size());
        assert_eq!(bert.special_token_id(SpecialToken::Pad), Some(0));
        assert_eq!(bert.special_token_id(SpecialToken::Mask), Some(4));
        let roberta = learn(TokenizerStyle::Roberta, TokenizerAlgorithm::ByteLevelBpe, 300);
        assert_eq!(roberta.special_token_id(SpecialToken::Pad), Some(1));
        assert_eq!(roberta.special_token_id(SpecialToken::Sep), Some(2));
        let gpt2 = learn(TokenizerStyle::Gpt2, TokenizerAlgorithm::ByteLevelBpe, 280);
        assert_eq!(gpt2.pad_id(), 0);
        assert_eq!(gpt2.special_token_id(SpecialToken::Mask), None);
        let options = TokenizerTrainOptions {
            style: TokenizerStyle::Gpt2,
            vocab_size: 99,
            ..Default::default()
        };
        let e = Tokenizer::train(&options, &TEXTS).unwrap_err();
        assert_eq!(e.message(), "vocab_size 99 is less than the 257 special tokens and characters");
        assert!(Tokenizer::train(&TokenizerTrainOptions::default(), &[""]).is_err());
    }
}

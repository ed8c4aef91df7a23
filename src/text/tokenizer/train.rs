//! Training of tokenizers by byte-pair encoding, with the same result on every machine.
//!
//! A word is a sequence of symbols. The most frequent adjacent pair of symbols over all words
//! (ties: the pair of lower ids) becomes a new symbol, until the vocabulary is full or no pair
//! is frequent enough (Sennrich, Haddow & Birch 2016). WordPiece vocabularies are trained in
//! the same way, with `##` before symbols inside words; they only split words differently.

use crate::error::{Error, Result};
use crate::text::tokenizer::check::tokenizers_error;
use crate::text::tokenizer::config::Config;
use crate::text::tokenizer::pipeline::{
    MAX_WORD_CHARS, Settings, assemble, pre_tokenizer, word_piece,
};
use crate::text::tokenizer::style::{TokenizerAlgorithm, TokenizerStyle};
use crate::text::tokenizer::tokenize::Tokenizer;
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    ModelWrapper, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer,
};

/// A WordPiece vocabulary has at most this many characters, the most frequent.
const MAX_ALPHABET: usize = 1000;

/// How a tokenizer is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerTrainOptions {
    /// The special tokens and where they go. Default: BERT.
    pub style: TokenizerStyle,
    /// How words are split; `None` (default): as in the style's published models.
    pub algorithm: Option<TokenizerAlgorithm>,
    /// Greatest number of ids, special tokens included. Default: 8000. Byte-level vocabularies
    /// need at least 256 and their special tokens.
    pub vocab_size: usize,
    /// A pair of symbols is merged only if it occurs this often. Default: 2.
    pub min_frequency: u64,
    /// Lower-case and strip accents first (WordPiece only). Default: true.
    pub lowercase: bool,
    /// The greatest length of a sequence in tokens, written to the saved files. Default: 512.
    pub model_max_length: usize,
}

impl Default for TokenizerTrainOptions {
    fn default() -> Self {
        Self {
            style: TokenizerStyle::Bert,
            algorithm: None,
            vocab_size: 8000,
            min_frequency: 2,
            lowercase: true,
            model_max_length: 512,
        }
    }
}

impl Tokenizer {
    /// Trains a tokenizer on texts. The result depends on texts and options alone, not on threads,
    /// runs or the order of the texts.
    ///
    /// Errors: `InvalidArgument` when there is no text, or `vocab_size` is too small for the
    /// special tokens and the alphabet; the message names the smallest size.
    pub fn train<S: AsRef<str> + Sync>(
        options: &TokenizerTrainOptions,
        texts: &[S],
    ) -> Result<Self> {
        let algorithm = options.algorithm.unwrap_or(options.style.default_algorithm());
        let settings =
            Settings { lowercase: options.lowercase, ..Settings::new(options.style, algorithm) };
        let counts = count_words(&settings, texts)?;
        if counts.is_empty() {
            return Err(Error::invalid("a tokenizer needs some text to be trained on"));
        }
        let prefix = if algorithm == TokenizerAlgorithm::WordPiece { "##" } else { "" };
        let trained = BpeTrainer::new(options, algorithm, &counts, prefix)?.run(options, prefix);
        let model: ModelWrapper = match algorithm {
            TokenizerAlgorithm::WordPiece => {
                word_piece(trained.vocab(), options.style, &Config::default())?.into()
            }
            TokenizerAlgorithm::ByteLevelBpe => BPE::builder()
                .vocab_and_merges(trained.vocab(), trained.merges())
                .build()
                .map_err(tokenizers_error)?
                .into(),
        };
        let mut tokenizer = assemble(model, settings, &Config::default())?;
        tokenizer.max_length = options.model_max_length;
        Ok(tokenizer)
    }
}

type Counts = BTreeMap<String, u64>;

/// Words with their counts, sorted by bytes.
fn count_words<S: AsRef<str> + Sync>(settings: &Settings, texts: &[S]) -> Result<Counts> {
    let normalizer = settings.normalizer();
    let pre_tokenizer = pre_tokenizer(settings.algorithm, false);
    let count = |mut counts: HashMap<String, u64>, text: &S| {
        let mut text = NormalizedString::from(text.as_ref());
        if let Some(normalizer) = &normalizer {
            normalizer.normalize(&mut text).map_err(tokenizers_error)?;
        }
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces).map_err(tokenizers_error)?;
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
    // Not the pool of the process, which panics for ever if its threads cannot be started once.
    let pool = ThreadPoolBuilder::new()
        .build()
        .map_err(|e| Error::no_thread(std::io::Error::other(e.to_string())))?;
    let merge = |mut a: HashMap<String, u64>, b: HashMap<String, u64>| {
        b.into_iter().for_each(|(word, n)| *a.entry(word).or_default() += n);
        Ok(a)
    };
    let all = || texts.par_iter().try_fold(HashMap::new, count).try_reduce(HashMap::new, merge);
    Ok(pool.install(all)?.into_iter().collect())
}

type Pair = (u32, u32);

/// The state of training: words as symbols, and how often and in which words each pair of symbols
/// occurs.
struct BpeTrainer {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<(Vec<u32>, u64)>,
    pairs: HashMap<Pair, u64>,
    words_with: HashMap<Pair, Vec<u32>>,
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    merges: Vec<Pair>,
}

impl BpeTrainer {
    fn new(
        options: &TokenizerTrainOptions,
        algorithm: TokenizerAlgorithm,
        counts: &Counts,
        prefix: &str,
    ) -> Result<Self> {
        let mut trainer = Self {
            tokens: Vec::new(),
            ids: HashMap::new(),
            words: Vec::with_capacity(counts.len()),
            pairs: HashMap::new(),
            words_with: HashMap::new(),
            queue: BinaryHeap::new(),
            merges: Vec::new(),
        };
        for token in options.style.special_tokens() {
            trainer.add((*token).to_owned());
        }
        if options.style == TokenizerStyle::Gpt2 && algorithm == TokenizerAlgorithm::WordPiece {
            return Err(Error::unsupported(
                "WordPiece with GPT-2's special tokens: it has none \
                for unknown words; use byte-level BPE",
            ));
        }
        let alphabet = alphabet(algorithm, counts);
        for c in &alphabet {
            trainer.add(c.to_string());
        }
        let known: HashSet<char> = alphabet.into_iter().collect();
        let inner: BTreeSet<char> = counts.keys().flat_map(|w| w.chars().skip(1)).collect();
        if !prefix.is_empty() {
            for c in inner.iter().filter(|c| known.contains(c)) {
                trainer.add(format!("{prefix}{c}"));
            }
        }
        if options.vocab_size < trainer.tokens.len() {
            return Err(Error::invalid(format!(
                "vocab_size {} is less than the {} special tokens and characters",
                options.vocab_size,
                trainer.tokens.len()
            )));
        }
        trainer.read_words(counts, &known, prefix);
        Ok(trainer)
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
        for (word, (symbols, count)) in self.words.iter().enumerate() {
            for pair in symbols.windows(2).map(|w| (w[0], w[1])) {
                *self.pairs.entry(pair).or_default() += count;
                add_word(self.words_with.entry(pair).or_default(), word as u32);
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
                // The pair has lost occurrences since it was queued.
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

    /// Makes the pair one symbol in every word.
    fn merge(&mut self, pair: Pair, prefix: &str) {
        let right = &self.tokens[pair.1 as usize];
        let right = right.strip_prefix(prefix).unwrap_or(right);
        let merged = format!("{}{right}", self.tokens[pair.0 as usize]);
        let id = self.add(merged);
        self.merges.push(pair);
        let mut changed = BTreeSet::new();
        for word in self.words_with.remove(&pair).unwrap_or_default() {
            let (symbols, count) = &mut self.words[word as usize];
            for old in symbols.windows(2).map(|w| (w[0], w[1])) {
                if let Some(n) = self.pairs.get_mut(&old) {
                    *n -= *count;
                }
            }
            replace(symbols, pair, id);
            for new in symbols.windows(2).map(|w| (w[0], w[1])) {
                *self.pairs.entry(new).or_default() += *count;
                if new.0 == id || new.1 == id {
                    add_word(self.words_with.entry(new).or_default(), word);
                    changed.insert(new);
                }
            }
        }
        for new in changed {
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

/// Adds a word to a list in ascending order, once.
fn add_word(words: &mut Vec<u32>, word: u32) {
    if words.last() != Some(&word) {
        words.push(word);
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

/// The characters that become tokens, sorted.
fn alphabet(algorithm: TokenizerAlgorithm, counts: &Counts) -> BTreeSet<char> {
    if algorithm == TokenizerAlgorithm::ByteLevelBpe {
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
    use crate::text::SpecialToken;

    const TEXTS: [&str; 4] = [
        "the lowest of the low, the newest of the new",
        "Lower, lower! The newer one is lower than the wider one.",
        "widest and newest \u{1F600} caf\u{e9}s",
        "the the the banana bananas aaaa aaaa",
    ];

    fn train(style: TokenizerStyle, algorithm: TokenizerAlgorithm, vocab_size: usize) -> Tokenizer {
        let algorithm = Some(algorithm);
        let options = TokenizerTrainOptions { style, algorithm, vocab_size, ..Default::default() };
        Tokenizer::train(&options, &TEXTS).unwrap()
    }

    /// Merges by counting all pairs anew for each merge.
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
        // Few letters in many words: pairs overlap, gain and lose occurrences often.
        let word = |i: usize| (0..9).map(|k| ['a', 'b', 'c'][((i * 7919) >> k) % 3]).collect();
        let letters: Vec<String> = (0..200).map(word).collect();
        let plain: Vec<String> = TEXTS.map(str::to_owned).to_vec();
        for texts in [plain, letters] {
            let settings = Settings::new(TokenizerStyle::Gpt2, TokenizerAlgorithm::ByteLevelBpe);
            let counts = count_words(&settings, &texts).unwrap();
            let trainer =
                BpeTrainer::new(&options, TokenizerAlgorithm::ByteLevelBpe, &counts, "").unwrap();
            let order = trainer.tokens.clone();
            let merges = trainer.run(&options, "").merges();
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
        let bert = train(TokenizerStyle::Bert, TokenizerAlgorithm::WordPiece, 90);
        assert!(bert.vocab_size() <= 90 && bert.vocab_size() > 53, "{}", bert.vocab_size());
        assert_eq!(bert.special_token_id(SpecialToken::Pad), Some(0));
        assert_eq!(bert.special_token_id(SpecialToken::Mask), Some(4));
        let roberta = train(TokenizerStyle::Roberta, TokenizerAlgorithm::ByteLevelBpe, 300);
        assert_eq!(roberta.special_token_id(SpecialToken::Pad), Some(1));
        assert_eq!(roberta.special_token_id(SpecialToken::Sep), Some(2));
        let gpt2 = train(TokenizerStyle::Gpt2, TokenizerAlgorithm::ByteLevelBpe, 280);
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

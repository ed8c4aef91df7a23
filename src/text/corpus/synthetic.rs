//! Generated labelled sentences, for trying things out where no real text can be had.
//!
//! Each sentence is an opinion, label `0` (negative) or `1` (positive). Its adjectives alone do not
//! decide it: a sixth of the clauses negate them, a fifth of the sentences contrast two clauses of
//! which only the second counts, and neutral clauses are mixed in. A fraction of the labels is
//! wrong, so that no model reaches 100%.

use crate::error::{Error, Result};
use crate::text::corpus::examples::Corpus;
use crate::text::rng::{Purpose, Stream};

/// What is generated.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticOptions {
    /// Number of sentences. Default: 6000.
    pub n_sentences: usize,
    /// Decides every word. Default: 0.
    pub seed: u64,
    /// Fraction of wrong labels, 0 to below 0.5. Default: 0.03.
    pub label_noise: f64,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self { n_sentences: 6000, seed: 0, label_noise: 0.03 }
    }
}

const GOOD: &[&str] = &[
    "good",
    "great",
    "superb",
    "charming",
    "moving",
    "funny",
    "clever",
    "fresh",
    "warm",
    "bright",
    "honest",
    "tender",
    "lively",
    "graceful",
    "gripping",
    "witty",
    "rich",
    "subtle",
    "delightful",
    "memorable",
    "thoughtful",
    "inventive",
    "elegant",
    "stirring",
    "splendid",
];
const BAD: &[&str] = &[
    "bad",
    "dull",
    "awful",
    "clumsy",
    "tedious",
    "flat",
    "lazy",
    "stale",
    "cold",
    "bland",
    "shallow",
    "noisy",
    "hollow",
    "messy",
    "boring",
    "tired",
    "silly",
    "crude",
    "dreary",
    "forgettable",
    "pointless",
    "predictable",
    "wooden",
    "muddled",
    "lifeless",
];
const THINGS: &[&str] = &[
    "film",
    "story",
    "plot",
    "acting",
    "script",
    "music",
    "ending",
    "dialogue",
    "cast",
    "camera",
    "pace",
    "first half",
    "second half",
    "romance",
    "humour",
    "lead actor",
    "villain",
    "direction",
    "opening scene",
    "final act",
];
const VERY: &[&str] = &["very", "really", "quite", "truly", "rather", "so", ""];
const NEUTRAL: &[&str] = &[
    "it runs for two hours",
    "I saw it on a Tuesday",
    "the hall was half full",
    "it was shot in the north",
    "my brother came along",
    "it opened last week",
    "the tickets were sold out",
    "there is a book of the same name",
];

/// More than trying things out needs, and less than what fills a machine's memory.
pub(super) const MAX_SENTENCES: usize = 10_000_000;

impl Corpus {
    /// Generates labelled sentences; half of them are positive on average. The same options
    /// always give the same sentences.
    ///
    /// Error: no sentence asked for, or too many, or a noise outside [0, 0.5).
    pub fn synthetic(options: &SyntheticOptions) -> Result<Self> {
        if !(1..=MAX_SENTENCES).contains(&options.n_sentences)
            || !(0.0..0.5).contains(&options.label_noise)
        {
            return Err(Error::invalid(format!(
                "{} sentences with a label noise of {}: give 1 to {MAX_SENTENCES} sentences, and a \
                 noise in [0, 0.5)",
                options.n_sentences, options.label_noise
            )));
        }
        let mut rng = Stream::new(options.seed, Purpose::Synthetic, 0, 0);
        let (mut texts, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..options.n_sentences {
            let positive = rng.below(2) == 1;
            texts.push(sentence(positive, &mut rng));
            let wrong = rng.unit() < options.label_noise;
            labels.push(if positive != wrong { "1" } else { "0" }.to_owned());
        }
        let names = crate::text::LabelMap::from_names(["0", "1"])?;
        Self::from_texts(texts, &labels, Some(&names))
    }
}

pub(super) fn pick(from: &[&'static str], rng: &mut Stream) -> &'static str {
    from[rng.below(from.len())]
}

/// An opinion that is `positive` or not.
fn sentence(positive: bool, rng: &mut Stream) -> String {
    let mut text = match rng.below(5) {
        0 | 1 => clause(positive, rng),
        2 => {
            let (first, last) = (clause(!positive, rng), clause(positive, rng));
            match rng.below(3) {
                0 => format!("{first} , but {last}"),
                1 => format!("although {first} , {last}"),
                _ => format!("{first} ; still , {last}"),
            }
        }
        _ => format!("{} and {}", clause(positive, rng), clause(positive, rng)),
    };
    match rng.below(4) {
        0 => text = format!("{} , {text}", pick(NEUTRAL, rng)),
        1 => text = format!("{text} , {}", pick(NEUTRAL, rng)),
        _ => {}
    }
    format!("{text} {}", [".", ".", "!", "..."][rng.below(4)])
}

/// `the plot is quite good`, or the same by negating the opposite.
fn clause(positive: bool, rng: &mut Stream) -> String {
    let negated = rng.below(6) == 0;
    let word = pick(if positive != negated { GOOD } else { BAD }, rng);
    let thing = pick(THINGS, rng);
    let strength = pick(VERY, rng);
    let strong = if strength.is_empty() { word.to_owned() } else { format!("{strength} {word}") };
    if !negated {
        return match rng.below(3) {
            0 => format!("the {thing} is {strong}"),
            1 => format!("I found the {thing} {strong}"),
            _ => format!("what a {word} {thing}"),
        };
    }
    match rng.below(4) {
        0 => format!("the {thing} is not {word} at all"),
        1 => format!("nobody would call the {thing} {word}"),
        2 => format!("the {thing} is anything but {word}"),
        _ => format!("the {thing} was never {strong}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Example;
    use std::collections::HashMap;

    fn rows(corpus: &Corpus) -> Vec<(&str, u32)> {
        let row = |e| match e {
            &Example::Text { ref text, label: Some(label), .. } => (text.as_str(), label),
            _ => unreachable!(),
        };
        corpus.examples().iter().map(row).collect()
    }

    /// Accuracy on the second half of classifying by the word counts of the first half
    /// (naive Bayes): what can be reached without the order of words.
    fn bag_of_words(corpus: &Corpus) -> f64 {
        let rows = rows(corpus);
        let (train, eval) = rows.split_at(rows.len() / 2);
        let mut seen: HashMap<&str, [f64; 2]> = HashMap::new();
        for (text, label) in train {
            for word in text.split(' ') {
                seen.entry(word).or_insert([1.0, 1.0])[*label as usize] += 1.0;
            }
        }
        let right = eval.iter().filter(|(text, label)| {
            let odds: f64 =
                text.split(' ').filter_map(|w| seen.get(w)).map(|c| (c[1] / c[0]).ln()).sum();
            u32::from(odds > 0.0) == *label
        });
        right.count() as f64 / eval.len() as f64
    }

    #[test]
    fn negation_inverts_the_opinion() {
        let options = SyntheticOptions { label_noise: 0.0, ..Default::default() };
        let corpus = Corpus::synthetic(&options).unwrap();
        let mut seen = [0, 0];
        for (text, label) in rows(&corpus) {
            let opinions: Vec<&str> =
                text.split(' ').filter(|w| GOOD.contains(w) || BAD.contains(w)).collect();
            let [word] = opinions[..] else { continue };
            let negated =
                [" not ", "nobody", "anything but", "never"].iter().any(|d| text.contains(d));
            assert_eq!(GOOD.contains(&word) != negated, label == 1, "{text}");
            seen[usize::from(negated)] += 1;
        }
        assert!(seen[0] > 500 && seen[1] > 100, "{seen:?}");
    }

    #[test]
    fn reproducible_balanced_and_not_trivial() {
        let corpus = Corpus::synthetic(&SyntheticOptions::default()).unwrap();
        assert_eq!(corpus, Corpus::synthetic(&SyntheticOptions::default()).unwrap());
        let other = SyntheticOptions { seed: 1, ..Default::default() };
        assert_ne!(corpus, Corpus::synthetic(&other).unwrap());
        assert_eq!(corpus.len(), 6000);
        assert!(corpus.majority_fraction() < 0.53);
        let words = bag_of_words(&corpus);
        assert!((0.6..0.9).contains(&words), "{words}");
        assert!(Corpus::synthetic(&SyntheticOptions { n_sentences: 0, ..other }).is_err());
    }
}

//! Splitting a corpus into training and evaluation data without equal texts on both sides.

use crate::error::{Error, Result};
use crate::text::corpus::examples::{Corpus, Example};
use crate::text::rng::{Purpose, Stream};
use std::collections::{BTreeMap, HashMap};

/// How a corpus is split.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitOptions {
    /// Fraction of examples for evaluation, above 0 and below 1. Default: 0.1.
    pub eval_fraction: f64,
    /// Decides which examples are chosen. Default: 0.
    pub seed: u64,
    /// Keep the proportions of the classes on both sides (classification). Default: true.
    pub stratify: bool,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { eval_fraction: 0.1, seed: 0, stratify: true }
    }
}

impl Corpus {
    /// Splits into (training, evaluation), each in the order of this corpus.
    ///
    /// Examples of equal text, apart from white space, case and punctuation, stay together,
    /// whatever their labels; so do all questions about one context.
    ///
    /// Errors: a fraction outside (0, 1), or a side that would be empty.
    pub fn split(&self, options: &SplitOptions) -> Result<(Self, Self)> {
        let fraction = options.eval_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::invalid(format!("eval_fraction {fraction} is not between 0 and 1")));
        }
        let mut strata: BTreeMap<Option<u32>, Vec<Vec<usize>>> = BTreeMap::new();
        for group in self.groups() {
            let class = match &self.examples()[group[0]] {
                Example::Text { label, .. } if options.stratify => *label,
                _ => None,
            };
            strata.entry(class).or_default().push(group);
        }
        let mut rng = Stream::new(options.seed, Purpose::Split, 0, 0);
        let mut eval = Vec::new();
        for groups in strata.values_mut() {
            rng.shuffle(groups);
            let total: usize = groups.iter().map(Vec::len).sum();
            let wanted = (total as f64 * fraction).round() as usize;
            let mut taken = 0;
            for group in groups.iter() {
                if taken + group.len() <= wanted {
                    taken += group.len();
                    eval.extend(group);
                }
            }
        }
        eval.sort_unstable();
        if eval.is_empty() || eval.len() == self.len() {
            return Err(Error::invalid(format!(
                "{} examples cannot be split with eval_fraction {fraction}",
                self.len()
            )));
        }
        let is_eval: std::collections::HashSet<usize> = eval.iter().copied().collect();
        let train: Vec<usize> = (0..self.len()).filter(|i| !is_eval.contains(i)).collect();
        Ok((self.subset(&train)?, self.subset(&eval)?))
    }

    /// Indices of examples that belong together, by first occurrence.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut by_key: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, example) in self.examples().iter().enumerate() {
            let next = groups.len();
            let group = *by_key.entry(key(example)).or_insert(next);
            if group == next {
                groups.push(Vec::new());
            }
            groups[group].push(i);
        }
        groups
    }
}

/// Equal for examples that must be on one side.
fn key(example: &Example) -> String {
    let flat = |text: &str| {
        let spelled: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
        // Texts without letters and digits are compared as they are.
        if spelled.is_empty() { text.split_whitespace().collect() } else { spelled }
    };
    match example {
        Example::Text { text, pair: None, .. } => flat(text),
        Example::Text { text, pair: Some(pair), .. } => format!("{}\n{}", flat(text), flat(pair)),
        Example::Words { words, .. } => flat(&words.join(" ")),
        Example::Question { context, .. } => flat(context),
        Example::Document(text) => flat(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn corpus(n: usize) -> Corpus {
        // Every text twice, once with other white space, case and signs; a third of class "b".
        let texts = (0..n).map(|i| {
            if i % 2 == 0 { format!("Text  {}", i / 2) } else { format!("text {}! ", i / 2) }
        });
        let classes: Vec<String> =
            (0..n).map(|i| if i / 2 % 3 == 0 { "b" } else { "a" }.to_owned()).collect();
        Corpus::from_texts(texts.collect(), &classes, None).unwrap()
    }

    fn keys(corpus: &Corpus) -> HashSet<String> {
        let digits = |t: &String| t.chars().filter(char::is_ascii_digit).collect();
        corpus.texts().iter().map(digits).collect()
    }

    #[test]
    fn equal_texts_stay_together_and_classes_keep_their_proportions() {
        let all = corpus(600);
        let (train, eval) = all.split(&SplitOptions::default()).unwrap();
        assert_eq!((train.len(), eval.len()), (540, 60));
        assert!(keys(&train).is_disjoint(&keys(&eval)));
        assert_eq!(eval.label_counts(), [40, 20]);
        let (_, again) = all.split(&SplitOptions::default()).unwrap();
        assert_eq!(again, eval);
        let (_, other) = all.split(&SplitOptions { seed: 1, ..Default::default() }).unwrap();
        assert_ne!(other, eval);
        let plain = SplitOptions { stratify: false, seed: 3, ..Default::default() };
        let (train, eval) = all.split(&plain).unwrap();
        assert_eq!(eval.len(), 60);
        assert_ne!(eval.label_counts(), [40, 20], "without stratification the proportions change");
        assert!(keys(&train).is_disjoint(&keys(&eval)));
    }

    #[test]
    fn refuses_empty_sides() {
        assert!(corpus(2).split(&SplitOptions::default()).is_err());
        let all = SplitOptions { eval_fraction: 1.0, ..Default::default() };
        assert!(corpus(20).split(&all).is_err());
    }
}

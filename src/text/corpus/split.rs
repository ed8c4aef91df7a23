//! Splitting a corpus: into training and evaluation data without equal texts on both sides, and
//! into a sample and the rest.

use crate::error::{Error, Result};
use crate::memory::{Gather, check_room, push, room};
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
        // For the groups: their keys, and a vector for each.
        check_room(self.n_bytes() + 128 * self.len())?;
        let mut strata: BTreeMap<Option<u32>, Vec<Vec<usize>>> = BTreeMap::new();
        for group in self.groups()? {
            let class = match &self.examples()[group[0]] {
                Example::Text { label, .. } if options.stratify => *label,
                _ => None,
            };
            push(strata.entry(class).or_default(), group)?;
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
                    eval.try_reserve(group.len())?;
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
        let train = (0..self.len()).filter(|i| eval.binary_search(i).is_err()).gathered()?;
        Ok((self.subset(&train)?, self.subset(&eval)?))
    }

    /// Splits into a random sample of `n` examples and the rest, each in the order of this corpus,
    /// e.g. for training with few labels. The sample has the classes in the proportions of this
    /// corpus (classification; to one example, by the largest remainders). Unlike [`Corpus::split`]
    /// it pays no heed to equal texts.
    ///
    /// Error: `n` is 0 or more than there are examples.
    pub fn sample(&self, n: usize, seed: u64) -> Result<(Self, Self)> {
        let all = self.len();
        if n == 0 || n > all {
            return Err(Error::invalid(format!("a sample of {n} of {all} examples")));
        }
        check_room(32 * self.len())?;
        let mut strata: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
        for (i, example) in self.examples().iter().enumerate() {
            let class = match example {
                Example::Text { label, .. } => *label,
                _ => None,
            };
            push(strata.entry(class).or_default(), i)?;
        }
        let product = |of: &[usize]| of.len() as u128 * n as u128;
        let mut wanted: Vec<usize> =
            strata.values().map(|of| (product(of) / all as u128) as usize).collect();
        let mut by_remainder: Vec<(u128, usize)> =
            strata.values().enumerate().map(|(k, of)| (product(of) % all as u128, k)).collect();
        by_remainder.sort_by_key(|&(remainder, k)| (std::cmp::Reverse(remainder), k));
        let missing = n - wanted.iter().sum::<usize>();
        by_remainder.iter().take(missing).for_each(|&(_, k)| wanted[k] += 1);
        let mut rng = Stream::new(seed, Purpose::Sample, 0, 0);
        let (mut chosen, mut rest) = (room(n)?, room(all - n)?);
        for (of, wanted) in strata.values_mut().zip(wanted) {
            rng.shuffle(of);
            chosen.extend(&of[..wanted]);
            rest.extend(&of[wanted..]);
        }
        chosen.sort_unstable();
        rest.sort_unstable();
        Ok((self.subset(&chosen)?, self.subset(&rest)?))
    }

    /// Indices of examples that belong together, by first occurrence.
    fn groups(&self) -> Result<Vec<Vec<usize>>> {
        let mut by_key: HashMap<String, usize> = HashMap::new();
        by_key.try_reserve(self.len())?;
        let mut groups: Vec<Vec<usize>> = room(self.len())?;
        for (i, example) in self.examples().iter().enumerate() {
            let next = groups.len();
            let group = *by_key.entry(key(example)).or_insert(next);
            if group == next {
                groups.push(Vec::new());
            }
            push(&mut groups[group], i)?;
        }
        Ok(groups)
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
        corpus.texts().unwrap().iter().map(digits).collect()
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
    fn samples_have_their_size_and_the_proportions_of_the_classes() {
        let all = corpus(60);
        for (n, classes) in [(30, [20, 10]), (31, [21, 10]), (1, [1, 0]), (60, [40, 20])] {
            let (chosen, rest) = all.sample(n, 1).unwrap();
            assert_eq!((chosen.len(), rest.len()), (n, 60 - n));
            assert_eq!(chosen.label_counts(), classes);
            let mut both: Vec<_> =
                chosen.texts().unwrap().into_iter().chain(rest.texts().unwrap()).collect();
            let mut expected = all.texts().unwrap();
            both.sort();
            expected.sort();
            assert_eq!(both, expected);
        }
        assert_eq!(all.sample(30, 1).unwrap(), all.sample(30, 1).unwrap());
        assert_ne!(all.sample(30, 1).unwrap(), all.sample(30, 2).unwrap());
        assert!(all.sample(0, 1).is_err() && all.sample(61, 1).is_err());
        let bare = all.without_labels().unwrap().sample(7, 1).unwrap().0;
        assert_eq!(bare.len(), 7);
    }

    #[test]
    fn refuses_empty_sides() {
        assert!(corpus(2).split(&SplitOptions::default()).is_err());
        let all = SplitOptions { eval_fraction: 1.0, ..Default::default() };
        assert!(corpus(20).split(&all).is_err());
    }
}

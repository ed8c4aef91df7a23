//! Measures of text tasks: accuracy, entities, answers, perplexity.
//!
//! Entities follow the shared tasks' script `conlleval`: an entity counts when its type and both
//! ends are right. Answers follow SQuAD's script: equality and overlap of words after lower-casing
//! and removing punctuation and articles.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Share of equal entries, 0 to 1; entries whose gold value is negative (such as -100) are left
/// out. 0 when none is left.
///
/// Error: the lengths differ.
pub fn accuracy(predicted: &[i64], gold: &[i64]) -> Result<f64> {
    same_length(predicted.len(), gold.len())?;
    let counted = predicted.iter().zip(gold).filter(|(_, g)| **g >= 0);
    let (mut right, mut total) = (0usize, 0usize);
    for (p, g) in counted {
        right += usize::from(p == g);
        total += 1;
    }
    Ok(ratio(right, total))
}

/// Mean over the classes that occur in `gold` or `predicted` of each class's F1, 0 to 1;
/// entries whose gold value is negative are left out.
///
/// Error: the lengths differ.
pub fn macro_f1(predicted: &[i64], gold: &[i64]) -> Result<f64> {
    same_length(predicted.len(), gold.len())?;
    let mut classes: BTreeMap<i64, Counts> = BTreeMap::new();
    for (&p, &g) in predicted.iter().zip(gold).filter(|(_, g)| **g >= 0) {
        classes.entry(g).or_default().gold += 1;
        classes.entry(p).or_default().found += 1;
        classes.entry(g).or_default().right += usize::from(p == g);
    }
    let sum: f64 = classes.values().map(|c| Score::from(*c).f1).sum();
    Ok(if classes.is_empty() { 0.0 } else { sum / classes.len() as f64 })
}

/// `exp(loss)` of a mean negative log-likelihood a token, in nats.
pub fn perplexity(mean_loss: f64) -> f64 {
    mean_loss.exp()
}

#[derive(Clone, Copy, Default)]
struct Counts {
    right: usize,
    found: usize,
    gold: usize,
}

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Share of what was found that is right.
    pub precision: f64,
    /// Share of what there is that was found.
    pub recall: f64,
    /// `2 p r / (p + r)`, 0 when both are 0.
    pub f1: f64,
    /// How many there are.
    pub support: usize,
}

impl From<Counts> for Score {
    fn from(c: Counts) -> Self {
        Self {
            precision: ratio(c.right, c.found),
            recall: ratio(c.right, c.gold),
            f1: ratio(2 * c.right, c.found + c.gold),
            support: c.gold,
        }
    }
}

/// Scores of entities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityScores {
    /// Over all entities.
    pub overall: Score,
    /// For each type, by name.
    pub by_type: BTreeMap<String, Score>,
    /// Share of words with the right tag.
    pub accuracy: f64,
}

/// Entities of tagged sentences, as `conlleval` counts them; BIO, IOB and BIOES tags.
///
/// Error: numbers of sentences or words differ.
pub fn entity_scores<S: AsRef<str>>(predicted: &[Vec<S>], gold: &[Vec<S>]) -> Result<EntityScores> {
    same_length(predicted.len(), gold.len())?;
    let mut types: BTreeMap<String, Counts> = BTreeMap::new();
    let (mut right, mut total) = (0, 0);
    for (i, (p, g)) in predicted.iter().zip(gold).enumerate() {
        same_length(p.len(), g.len()).map_err(|e| e.context(format!("sentence {i}")))?;
        right += p.iter().zip(g).filter(|(p, g)| p.as_ref() == g.as_ref()).count();
        total += g.len();
        let (found, there) = (entities(p), entities(g));
        found.iter().for_each(|e| types.entry(e.kind.clone()).or_default().found += 1);
        there.iter().for_each(|e| types.entry(e.kind.clone()).or_default().gold += 1);
        let there: HashSet<Entity> = there.into_iter().collect();
        for entity in found.into_iter().filter(|e| there.contains(e)) {
            types.entry(entity.kind).or_default().right += 1;
        }
    }
    let sum = types.values().fold(Counts::default(), |a, c| Counts {
        right: a.right + c.right,
        found: a.found + c.found,
        gold: a.gold + c.gold,
    });
    Ok(EntityScores {
        overall: sum.into(),
        by_type: types.into_iter().map(|(kind, c)| (kind, c.into())).collect(),
        accuracy: ratio(right, total),
    })
}

/// An entity of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entity {
    /// Its type, e.g. `PER`.
    pub kind: String,
    /// Its first word.
    pub start: usize,
    /// The word after its last.
    pub end: usize,
}

/// The entities that tags describe. An `I-X` without a beginning begins an entity.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Vec<Entity> {
    let mut all: Vec<Entity> = Vec::new();
    let mut open = false;
    let (mut before, mut before_kind) = ("O", "");
    for (i, tag) in tags.iter().map(AsRef::as_ref).enumerate() {
        let (mark, kind) = match tag.split_once('-') {
            Some(parts) => parts,
            None => (tag, ""),
        };
        let outside = mark == "O";
        let begins =
            matches!(mark, "B" | "S") || kind != before_kind || matches!(before, "O" | "E" | "S");
        if open && (outside || begins) {
            open = false;
        }
        if !outside && begins {
            all.push(Entity { kind: kind.to_owned(), start: i, end: i });
            open = true;
        }
        if let Some(last) = all.last_mut().filter(|_| open) {
            last.end = i + 1;
        }
        (before, before_kind) = (mark, kind);
    }
    all
}

/// Scores of answers, in per cent as SQuAD's script prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerScores {
    /// Share of answers that equal an accepted one.
    pub exact_match: f64,
    /// Mean overlap of words with the best accepted answer.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
}

/// Answers against the accepted ones; a question without accepted answers wants an empty one.
///
/// Error: the lengths differ.
pub fn answer_scores(predicted: &[String], accepted: &[Vec<String>]) -> Result<AnswerScores> {
    same_length(predicted.len(), accepted.len())?;
    let (mut exact, mut f1) = (0.0, 0.0);
    for (answer, accepted) in predicted.iter().zip(accepted) {
        let best = |score: fn(&str, &str) -> f64| {
            let all = accepted.iter().map(|gold| score(answer, gold));
            if accepted.is_empty() { score(answer, "") } else { all.fold(0.0, f64::max) }
        };
        exact += best(|a, b| f64::from(u8::from(normalize_answer(a) == normalize_answer(b))));
        f1 += best(answer_f1);
    }
    let n = predicted.len().max(1) as f64;
    let total = predicted.len();
    Ok(AnswerScores { exact_match: 100.0 * exact / n, f1: 100.0 * f1 / n, total })
}

/// Overlap of words of two answers, 0 to 1: `2 s / (a + b)` for s shared of a and b words.
/// When one has no words, 1 if both have none, else 0.
pub fn answer_f1(predicted: &str, gold: &str) -> f64 {
    let (p, g) = (normalize_answer(predicted), normalize_answer(gold));
    let words = |text: &str| text.split_whitespace().count();
    if words(&p) == 0 || words(&g) == 0 {
        return f64::from(u8::from(p == g));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    g.split_whitespace().for_each(|w| *left.entry(w).or_default() += 1);
    let mut shared = 0;
    for word in p.split_whitespace() {
        if let Some(n) = left.get_mut(word).filter(|n| **n > 0) {
            *n -= 1;
            shared += 1;
        }
    }
    ratio(2 * shared, words(&p) + words(&g))
}

/// Lower case, without ASCII punctuation and the articles a, an, the; single spaces.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut out = String::with_capacity(bare.len());
    let mut word = String::new();
    for c in bare.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        if !matches!(word.as_str(), "a" | "an" | "the") {
            out.push_str(&word);
        } else {
            out.push(' ');
        }
        word.clear();
        out.push(c);
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn same_length(predicted: usize, gold: usize) -> Result<()> {
    if predicted == gold {
        return Ok(());
    }
    Err(Error::invalid(format!("{predicted} predictions for {gold} gold entries")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entities_of_every_scheme() {
        let check = |text: &str, expect: &[(&str, usize, usize)]| {
            let got = entities(&tags(text));
            let got: Vec<_> = got.iter().map(|e| (e.kind.as_str(), e.start, e.end)).collect();
            assert_eq!(got, expect, "{text}");
        };
        check("B-PER I-PER O B-LOC", &[("PER", 0, 2), ("LOC", 3, 4)]);
        check("B-PER B-PER I-PER", &[("PER", 0, 1), ("PER", 1, 3)]);
        check("I-PER I-PER O I-LOC I-PER", &[("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5)]);
        check("B-PER I-LOC", &[("PER", 0, 1), ("LOC", 1, 2)]);
        check(
            "S-PER S-PER B-X I-X E-X I-X",
            &[("PER", 0, 1), ("PER", 1, 2), ("X", 2, 5), ("X", 5, 6)],
        );
        check("B-X S-X I-X", &[("X", 0, 1), ("X", 1, 2), ("X", 2, 3)]);
        check("O O", &[]);
    }

    #[test]
    fn entity_scores_by_hand() {
        let gold = vec![tags("B-PER I-PER O B-LOC"), tags("O B-ORG O")];
        let predicted = vec![tags("B-PER I-PER O O"), tags("B-LOC B-ORG I-ORG")];
        let s = entity_scores(&predicted, &gold).unwrap();
        // Found 3 (PER right, LOC and ORG wrong), there are 3.
        assert_eq!(s.overall.precision, 1.0 / 3.0);
        assert_eq!(s.overall.recall, 1.0 / 3.0);
        assert_eq!(s.overall.f1, 1.0 / 3.0);
        assert_eq!(s.by_type["PER"].f1, 1.0);
        assert_eq!(s.by_type["LOC"].f1, 0.0);
        assert_eq!(s.accuracy, 4.0 / 7.0);
        assert!(entity_scores(&predicted[..1], &gold).is_err());
    }

    #[test]
    fn answers_by_hand() {
        assert_eq!(
            normalize_answer("The  Cat's, an A-Team (the \u{2013}a)"),
            "cats ateam \u{2013}"
        );
        assert_eq!(answer_f1("the big cat", "a cat"), 2.0 / 3.0);
        assert_eq!(answer_f1("cat cat", "cat"), 2.0 / 3.0);
        assert_eq!(answer_f1("", "the"), 1.0);
        assert_eq!(answer_f1("x", ""), 0.0);
        let predicted = vec!["In 1907!".to_owned(), "blue".to_owned(), String::new()];
        let accepted = vec![
            vec!["1907".to_owned(), "in 1907".to_owned()],
            vec!["blue sky".to_owned()],
            vec![],
        ];
        let s = answer_scores(&predicted, &accepted).unwrap();
        assert_eq!(s.exact_match, 100.0 * 2.0 / 3.0);
        assert!((s.f1 - 100.0 * (1.0 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn accuracy_and_macro_f1_leave_out_negatives() {
        let (predicted, gold) = ([0, 1, 1, 0], [0, 1, 0, -100]);
        assert_eq!(accuracy(&predicted, &gold).unwrap(), 2.0 / 3.0);
        assert!((macro_f1(&predicted, &gold).unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(accuracy(&[], &[]).unwrap(), 0.0);
        assert!(accuracy(&[1], &[]).is_err());
        assert!((perplexity(2.0f64.ln()) - 2.0).abs() < 1e-12);
    }
}

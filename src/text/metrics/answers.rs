//! Exact match and F1 of answers, by SQuAD's evaluation script: equality and common words after
//! lower-casing and removing punctuation and articles.

use crate::error::Result;
use crate::text::metrics::counts::{ratio, same_length};
use crate::text::metrics::python_words::{is_space, is_word};
use std::collections::HashMap;

/// Scores of answers in per cent, as SQuAD's evaluation script prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerScores {
    /// How many predicted answers equal an accepted one after normalization.
    pub exact_match: f64,
    /// Mean over the questions of [`answer_f1`] with the best accepted answer.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
}

/// Predicted answers against the accepted ones. For a question without accepted answers the right
/// answer is empty.
///
/// Error: the lengths differ.
pub fn answer_scores(predictions: &[String], accepted: &[Vec<String>]) -> Result<AnswerScores> {
    same_length(predictions.len(), accepted.len())?;
    let (mut exact, mut f1) = (0.0, 0.0);
    for (answer, accepted) in predictions.iter().zip(accepted) {
        let best = |score: fn(&str, &str) -> f64| {
            let all = accepted.iter().map(|right| score(answer, right));
            if accepted.is_empty() { score(answer, "") } else { all.fold(0.0, f64::max) }
        };
        exact += best(|a, b| f64::from(u8::from(normalize_answer(a) == normalize_answer(b))));
        f1 += best(answer_f1);
    }
    let n = predictions.len().max(1) as f64;
    let total = predictions.len();
    Ok(AnswerScores { exact_match: 100.0 * exact / n, f1: 100.0 * f1 / n, total })
}

/// F1 of the words of two normalized answers, 0 to 1: `2 s / (a + b)` where they have a and b words
/// and share s. When one has no words, 1 if both have none, else 0.
pub fn answer_f1(prediction: &str, accepted: &str) -> f64 {
    let (p, a) = (normalize_answer(prediction), normalize_answer(accepted));
    // Words are what single spaces separate now.
    let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).count();
    if words(&p) == 0 || words(&a) == 0 {
        return f64::from(u8::from(p == a));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    a.split(' ').for_each(|w| *left.entry(w).or_default() += 1);
    let mut shared = 0;
    for word in p.split(' ') {
        if let Some(n) = left.get_mut(word).filter(|n| **n > 0) {
            *n -= 1;
            shared += 1;
        }
    }
    ratio(2 * shared, words(&p) + words(&a))
}

/// Lower case, without ASCII punctuation and the articles a, an, the; single spaces. White space
/// and words are those of Python.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut out = String::with_capacity(bare.len());
    let mut word = String::new();
    for c in bare.chars().chain([' ']) {
        if is_word(c) {
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
    out.split(is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_hand() {
        assert_eq!(
            normalize_answer("The  Cat's, an A-Team (the \u{2013}a)"),
            "cats ateam \u{2013}"
        );
        // Separators are spaces; circled letters and marks are no letters.
        assert_eq!(normalize_answer("b\u{1c}c\u{1f}d"), "b c d");
        assert_eq!(normalize_answer("the\u{24d0} a\u{345}"), "\u{24d0} \u{345}");
        assert_eq!(answer_f1("b\u{1e}c", "c b"), 1.0);
        assert_eq!(answer_f1("the big cat", "a cat"), 2.0 / 3.0);
        assert_eq!(answer_f1("cat cat", "cat"), 2.0 / 3.0);
        assert_eq!(answer_f1("", "the"), 1.0);
        assert_eq!(answer_f1("x", ""), 0.0);
        let predictions = vec!["In 1907!".to_owned(), "blue".to_owned(), String::new()];
        let accepted = vec![
            vec!["1907".to_owned(), "in 1907".to_owned()],
            vec!["blue sky".to_owned()],
            vec![],
        ];
        let s = answer_scores(&predictions, &accepted).unwrap();
        assert_eq!(s.exact_match, 100.0 * 2.0 / 3.0);
        assert!((s.f1 - 100.0 * (1.0 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
    }
}

//! From a model's outputs to the tags of words and the answers to questions.

use crate::error::{Error, Result};
use crate::text::batch::collate::Batch;
use crate::text::batch::dataset::{AnswerContext, Dataset, Sequence};

/// The span of a context that a model predicts as the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictedAnswer {
    /// Start logit plus end logit. Of several windows of one context, the answer of the greatest
    /// score is the question's.
    pub score: f32,
    /// Its first byte in the context.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

impl AnswerContext {
    /// The span of at most `max_answer_tokens` tokens of the context with the greatest sum of
    /// start and end logit (ties: the earliest; NaN is passed over). `None` when the sequence has
    /// no token of the context.
    ///
    /// Error: fewer logits than tokens.
    pub fn best_answer(
        &self,
        start_logits: &[f32],
        end_logits: &[f32],
        max_answer_tokens: usize,
    ) -> Result<Option<PredictedAnswer>> {
        let n = self.offsets.len();
        check_outputs(start_logits.len().min(end_logits.len()), n)?;
        let mut best: Option<PredictedAnswer> = None;
        let in_context = |i: &usize| self.offsets[*i].1 > self.offsets[*i].0;
        for first in (0..n).filter(in_context) {
            let stop = n.min(first.saturating_add(max_answer_tokens));
            for last in (first..stop).filter(in_context) {
                let score = start_logits[first] + end_logits[last];
                if !score.is_nan() && best.is_none_or(|b| score > b.score) {
                    let (start, end) = (self.offsets[first].0, self.offsets[last].1);
                    best = Some(PredictedAnswer { score, start, end });
                }
            }
        }
        Ok(best)
    }
}

impl AnswerContext {
    /// At most `n_best` answers, best first, as Hugging Face's scripts find them: an answer begins
    /// at one of the `n_best` tokens with the greatest start logits and ends at one of the `n_best`
    /// with the greatest end logits of the whole sequence; it lies in the context and has at most
    /// `max_answer_tokens` tokens. Of equal scores the earlier is better; NaN is passed over.
    ///
    /// Error: fewer logits than tokens.
    pub fn best_answers(
        &self,
        start_logits: &[f32],
        end_logits: &[f32],
        n_best: usize,
        max_answer_tokens: usize,
    ) -> Result<Vec<PredictedAnswer>> {
        check_outputs(start_logits.len().min(end_logits.len()), self.offsets.len())?;
        let inside = |i: &usize| self.offsets.get(*i).is_some_and(|o| o.1 > o.0);
        let greatest = |logits: &[f32]| {
            let mut order: Vec<usize> =
                (0..logits.len()).filter(|&i| !logits[i].is_nan()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            order.truncate(n_best);
            order.sort_unstable();
            order
        };
        let mut all = Vec::new();
        let (starts, ends) = (greatest(start_logits), greatest(end_logits));
        for &first in starts.iter().filter(|i| inside(i)) {
            let near = |last: &&usize| {
                **last >= first && **last - first < max_answer_tokens && inside(last)
            };
            for &last in ends.iter().filter(near) {
                let score = start_logits[first] + end_logits[last];
                let (start, end) = (self.offsets[first].0, self.offsets[last].1);
                all.push(PredictedAnswer { score, start, end });
            }
        }
        all.retain(|a| !a.score.is_nan());
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(n_best);
        Ok(all)
    }
}

impl Batch {
    /// The context of a row's question.
    ///
    /// Errors: no such row; a batch of another task.
    pub fn context(&self, row: usize) -> Result<&AnswerContext> {
        if row >= self.len() {
            return Err(Error::invalid(format!("row {row} of a batch of {}", self.len())));
        }
        let context = self.contexts.get(row).map(AsRef::as_ref);
        context.ok_or_else(|| Error::invalid("the batch is not of question answering"))
    }
}

impl Dataset {
    /// The class of each word of a sequence from the classes of its tokens: that of the word's
    /// first token. `None` for words that were cut off or have no token.
    ///
    /// Errors: `sequence` out of range or of another task; fewer classes than tokens.
    pub fn word_classes(
        &self,
        sequence: usize,
        classes: &[u32],
        n_words: usize,
    ) -> Result<Vec<Option<u32>>> {
        let from = self.in_memory(sequence)?;
        check_outputs(classes.len(), from.ids.len())?;
        if from.words.len() != from.ids.len() || from.context.is_some() {
            return Err(Error::invalid(format!("sequence {sequence} has no words")));
        }
        let mut words = vec![None; n_words];
        for (word, class) in from.words.iter().zip(classes) {
            if let Some(slot) = word.and_then(|w| words.get_mut(w as usize)) {
                *slot = Some(*class);
            }
        }
        Ok(words)
    }

    /// [`AnswerContext::best_answer`] of a sequence.
    ///
    /// Errors: `sequence` out of range or of another task; fewer logits than tokens.
    pub fn best_answer(
        &self,
        sequence: usize,
        start_logits: &[f32],
        end_logits: &[f32],
        max_answer_tokens: usize,
    ) -> Result<Option<PredictedAnswer>> {
        let context = self.in_memory(sequence)?.context.as_ref();
        let context =
            context.ok_or_else(|| Error::invalid(format!("sequence {sequence} has no context")))?;
        context.best_answer(start_logits, end_logits, max_answer_tokens)
    }

    fn in_memory(&self, index: usize) -> Result<&Sequence> {
        let n = self.len();
        let found = self.sequences().get(index);
        found.ok_or_else(|| Error::invalid(format!("sequence {index} of a dataset of {n}")))
    }
}

fn check_outputs(n_outputs: usize, n_tokens: usize) -> Result<()> {
    if n_outputs >= n_tokens {
        return Ok(());
    }
    Err(Error::invalid(format!("{n_outputs} outputs for {n_tokens} tokens")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_answers_by_hand() {
        // A question token, then the context "ab cd ef", then padding without an offset.
        let offsets = vec![(0, 0), (0, 2), (3, 5), (6, 8)];
        let context = AnswerContext { text: "ab cd ef".into(), offsets };
        let (starts, ends) = ([9.0, 3.0, 2.0, 1.0, 0.0], [8.0, 0.5, 1.0, 4.0, 9.0]);
        let check = |n_best, max, expect: &[(f32, usize, usize)]| {
            let found = context.best_answers(&starts, &ends, n_best, max).unwrap();
            let found: Vec<_> = found.iter().map(|a| (a.score, a.start, a.end)).collect();
            assert_eq!(found, expect, "{n_best} {max}");
        };
        check(
            9,
            9,
            &[(7.0, 0, 8), (6.0, 3, 8), (5.0, 6, 8), (4.0, 0, 5), (3.5, 0, 2), (3.0, 3, 5)],
        );
        check(9, 2, &[(6.0, 3, 8), (5.0, 6, 8), (4.0, 0, 5), (3.5, 0, 2), (3.0, 3, 5)]);
        // The greatest start is the question's, the greatest ends are padding and the question's.
        check(2, 9, &[]);
        check(3, 9, &[(7.0, 0, 8), (6.0, 3, 8)]);
        assert!(context.best_answers(&starts[..3], &ends, 9, 9).is_err());
        let one = context.best_answer(&starts, &ends, 2).unwrap();
        assert_eq!(one, context.best_answers(&starts, &ends, 9, 2).unwrap().first().copied());
    }
}

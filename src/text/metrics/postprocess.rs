//! From a model's outputs back to words and answers.

use crate::error::{Error, Result};
use crate::text::batch::dataset::{Dataset, Sequence};

/// An answer found in a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictedAnswer {
    /// Start logit plus end logit; compare it between windows of one question.
    pub score: f32,
    /// First byte in the context.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Dataset {
    /// The class of each word of an item from the classes of its tokens: that of the word's
    /// first piece. `None` for words that were cut off or have no piece.
    ///
    /// Errors: `item` out of range or not of tagged words; fewer classes than tokens.
    pub fn word_classes(
        &self,
        item: usize,
        classes: &[u32],
        n_words: usize,
    ) -> Result<Vec<Option<u32>>> {
        let from = self.item(item)?;
        enough(from, classes.len())?;
        if from.words.len() != from.ids.len() {
            return Err(Error::invalid(format!("item {item} has no words")));
        }
        let mut words = vec![None; n_words];
        for (word, class) in from.words.iter().zip(classes) {
            if let Some(slot) = word.and_then(|w| words.get_mut(w as usize)) {
                *slot = Some(*class);
            }
        }
        Ok(words)
    }

    /// The best answer of an item: the span of context tokens of at most `max_tokens` with the
    /// greatest sum of start and end logit (ties: the earliest). `None` when the item holds no
    /// context.
    ///
    /// Errors: `item` out of range or not a question; fewer logits than tokens.
    pub fn best_answer(
        &self,
        item: usize,
        starts: &[f32],
        ends: &[f32],
        max_tokens: usize,
    ) -> Result<Option<PredictedAnswer>> {
        let from = self.item(item)?;
        enough(from, starts.len().min(ends.len()))?;
        if from.offsets.len() != from.ids.len() {
            return Err(Error::invalid(format!("item {item} is no question")));
        }
        let mut best: Option<PredictedAnswer> = None;
        let inside = |i: &usize| from.offsets[*i].1 > from.offsets[*i].0;
        for first in (0..from.ids.len()).filter(inside) {
            let reach = from.ids.len().min(first.saturating_add(max_tokens));
            for last in (first..reach).filter(inside) {
                let score = starts[first] + ends[last];
                if best.is_none_or(|b| score > b.score) {
                    let (start, end) = (from.offsets[first].0, from.offsets[last].1);
                    best = Some(PredictedAnswer { score, start, end });
                }
            }
        }
        Ok(best)
    }

    fn item(&self, item: usize) -> Result<&Sequence> {
        let n = self.len();
        let found = self.sequences().get(item);
        found.ok_or_else(|| Error::invalid(format!("item {item} of a dataset of {n}")))
    }
}

fn enough(item: &Sequence, given: usize) -> Result<()> {
    if given >= item.ids.len() {
        return Ok(());
    }
    Err(Error::invalid(format!("{given} outputs for {} tokens", item.ids.len())))
}

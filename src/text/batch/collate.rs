//! Batches: sequences of a dataset as named tensors, padded to a common length.

use crate::error::{Error, Result};
use crate::memory::{Gather, filled, zeros};
use crate::tensor::{Element, Tensor};
use crate::text::batch::dataset::{
    AnswerContext, Dataset, IGNORE_INDEX, IdNames, Sequence, Target,
};
use crate::text::rng::{Purpose, Stream};
use std::borrow::Cow;
use std::sync::Arc;

/// Named tensors for one model and one step.
///
/// B is the number of sequences, S the padded length. Always: `input_ids` and `attention_mask`,
/// i64 \[B, S\], and `example_ids`, i64 \[B\]; where the architecture has them `token_type_ids`,
/// i64 \[B, S\]. When any sequence has a target: `labels`, i64 \[B\] for classes and \[B, S\] for
/// tokens (-100, also for sequences without a target, is left out of the loss), or
/// `start_positions` and `end_positions`, i64 \[B\]. Without the answer in the sequence both are 0
/// where it begins with `[CLS]` or `<s>`, else -100. For token classification and question
/// answering `word_ids`, i64 \[B, S\]: [`Sequence::words`](super::Sequence::words), -1 for none.
/// Trainers take `example_ids` and `word_ids` for mutual learning; no model reads them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The tensors by name.
    pub tensors: Vec<(String, Tensor)>,
    /// The index in the dataset of each row's sequence.
    pub sequences: Vec<usize>,
    /// The index in the corpus of each row's example.
    pub examples: Vec<usize>,
    /// Number of tokens that are not padding.
    pub tokens: usize,
    /// Question answering: the context of each row. Empty for other tasks.
    pub contexts: Vec<Arc<AnswerContext>>,
    /// What ids and labels stand for.
    pub names: Arc<IdNames>,
}

impl Batch {
    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Number of rows, B.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Padded length, S.
    pub fn sequence_length(&self) -> usize {
        self.tensor("input_ids").and_then(|t| t.shape().get(1).copied()).unwrap_or(0)
    }

    /// Says that the rows count for nothing: i64 \[B\].
    pub(super) fn mark_filler(&mut self) -> Result<()> {
        self.push("filler", &[self.len()], &filled(self.len(), 1i64)?)
    }

    fn push<T: Element>(&mut self, name: &str, shape: &[usize], data: &[T]) -> Result<()> {
        self.tensors.push((name.to_owned(), Tensor::from_slice(shape, data)?));
        Ok(())
    }
}

/// How a batch is padded and masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollateOptions {
    pub(crate) pad_to_multiple_of: usize,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
}

impl Dataset {
    /// The sequences at `indices` as one batch, padded to a multiple of `pad_to_multiple_of` (0
    /// and 1: to the longest), but never beyond the dataset's greatest length. `seed` decides
    /// which tokens are masked for a masked language model.
    ///
    /// Error: no index, or one out of range.
    pub fn batch(&self, indices: &[usize], pad_to_multiple_of: usize, seed: u64) -> Result<Batch> {
        self.batch_for(indices, CollateOptions { pad_to_multiple_of, seed, epoch: 0 })
    }

    pub(crate) fn batch_for(&self, indices: &[usize], options: CollateOptions) -> Result<Batch> {
        let pick = |&i: &usize| {
            self.sequence(i).ok_or_else(|| {
                Error::invalid(format!("sequence {i} of a dataset of {}", self.len()))
            })
        };
        let sequences: Vec<Cow<Sequence>> = indices.iter().map(pick).gathered_or_error()?;
        let sequences: Vec<&Sequence> = sequences.iter().map(AsRef::as_ref).collect();
        let longest = sequences.iter().map(|s| s.ids.len()).max();
        let longest = longest.ok_or_else(|| Error::invalid("a batch needs a sequence"))?;
        let length = self.padded_length(longest, options.pad_to_multiple_of);
        let mut batch = Batch {
            sequences: indices.to_vec(),
            examples: sequences.iter().map(|s| s.example).collect(),
            tokens: sequences.iter().map(|s| s.ids.len()).sum(),
            names: self.names().clone(),
            contexts: sequences.iter().filter_map(|s| s.context.clone()).collect(),
            ..Default::default()
        };
        self.push_inputs(&mut batch, &sequences, length, options)?;
        push_targets(&mut batch, &sequences, length)?;
        push_identities(&mut batch, &sequences, length)?;
        Ok(batch)
    }

    /// The padded length of a batch whose longest sequence has `longest` tokens.
    pub(crate) fn padded_length(&self, longest: usize, multiple: usize) -> usize {
        let greatest = self.max_length().max(longest);
        longest.checked_next_multiple_of(multiple.max(1)).map_or(greatest, |n| n.min(greatest))
    }

    /// The inputs, and the labels of language models, which follow from them.
    fn push_inputs(
        &self,
        batch: &mut Batch,
        sequences: &[&Sequence],
        length: usize,
        options: CollateOptions,
    ) -> Result<()> {
        let shape = [sequences.len(), length];
        let pad = i64::from(self.pad_id());
        let mut ids = filled(sequences.len() * length, pad)?;
        let mut mask = zeros::<i64>(ids.len())?;
        let mut types = zeros::<i64>(ids.len())?;
        let mut labels = filled(ids.len(), IGNORE_INDEX)?;
        let language_modeling =
            sequences.iter().all(|s| matches!(s.target, Target::NextToken | Target::MaskedTokens));
        for (row, sequence) in sequences.iter().enumerate() {
            let span = row * length..row * length + sequence.ids.len();
            let row_ids = &mut ids[span.clone()];
            row_ids.iter_mut().zip(&sequence.ids).for_each(|(to, &id)| *to = i64::from(id));
            mask[span.clone()].fill(1);
            let row_types = &mut types[span.clone()];
            row_types.iter_mut().zip(&sequence.type_ids).for_each(|(to, &t)| *to = i64::from(t));
            match sequence.target {
                Target::NextToken => labels[span.clone()].copy_from_slice(&ids[span]),
                Target::MaskedTokens => {
                    let key = sequence.example as u64;
                    let mut rng = Stream::new(options.seed, Purpose::Mask, options.epoch, key);
                    self.mask_tokens(&mut ids[span.clone()], &mut labels[span], &mut rng);
                }
                _ => {}
            }
        }
        batch.push("input_ids", &shape, &ids)?;
        batch.push("attention_mask", &shape, &mask)?;
        if self.has_token_types() {
            batch.push("token_type_ids", &shape, &types)?;
        }
        if language_modeling { batch.push("labels", &shape, &labels) } else { Ok(()) }
    }

    /// Chooses tokens with `mlm_probability` and makes them labels: 80% of them become the mask
    /// token, 10% a random token, 10% stay (Devlin et al. 2019). At least one is chosen where any
    /// can be.
    fn mask_tokens(&self, ids: &mut [i64], labels: &mut [i64], rng: &mut Stream) {
        let Some(masking) = self.masking() else { return };
        let candidates: Vec<usize> =
            (0..ids.len()).filter(|&i| !masking.never_masked.contains(&(ids[i] as u32))).collect();
        if candidates.is_empty() {
            return;
        }
        let mut chosen: Vec<usize> =
            candidates.iter().copied().filter(|_| rng.unit() < masking.mlm_probability).collect();
        if chosen.is_empty() {
            chosen.push(candidates[rng.below(candidates.len())]);
        }
        for i in chosen {
            labels[i] = ids[i];
            let draw = rng.unit();
            if draw < 0.8 {
                ids[i] = i64::from(masking.mask_id);
            } else if draw < 0.9 {
                ids[i] = rng.below(masking.vocab_size) as i64;
            }
        }
    }
}

/// Which examples these are, and which words their tokens belong to.
fn push_identities(batch: &mut Batch, sequences: &[&Sequence], length: usize) -> Result<()> {
    let examples: Vec<i64> = sequences.iter().map(|s| s.example as i64).collect();
    batch.push("example_ids", &[sequences.len()], &examples)?;
    if sequences.iter().any(|s| s.words.is_empty()) {
        return Ok(());
    }
    let mut words = filled(sequences.len() * length, -1i64)?;
    for (row, sequence) in words.chunks_exact_mut(length.max(1)).zip(sequences) {
        row.iter_mut().zip(&sequence.words).for_each(|(to, w)| *to = w.map_or(-1, i64::from));
    }
    batch.push("word_ids", &[sequences.len(), length], &words)
}

fn push_targets(batch: &mut Batch, sequences: &[&Sequence], length: usize) -> Result<()> {
    let n = sequences.len();
    if sequences.iter().all(|s| s.target == Target::None) {
        return Ok(());
    }
    let classes: Option<Vec<i64>> = sequences
        .iter()
        .map(|s| match s.target {
            Target::Class(c) => Some(i64::from(c)),
            Target::None => Some(IGNORE_INDEX),
            _ => None,
        })
        .collect();
    if let Some(classes) = classes {
        return batch.push("labels", &[n], &classes);
    }
    let spans: Option<Vec<(i64, i64)>> = sequences
        .iter()
        .map(|s| match s.target {
            Target::Span(start, end) => Some((start, end)),
            Target::None => Some((IGNORE_INDEX, IGNORE_INDEX)),
            _ => None,
        })
        .collect();
    if let Some(spans) = spans {
        let (starts, ends): (Vec<i64>, Vec<i64>) = spans.into_iter().unzip();
        batch.push("start_positions", &[n], &starts)?;
        return batch.push("end_positions", &[n], &ends);
    }
    if sequences.iter().all(|s| matches!(s.target, Target::Tags(_) | Target::None)) {
        let mut labels = filled(n * length, IGNORE_INDEX)?;
        for (row, sequence) in sequences.iter().enumerate() {
            if let Target::Tags(tags) = &sequence.target {
                labels[row * length..row * length + tags.len()].copy_from_slice(tags);
            }
        }
        return batch.push("labels", &[n, length], &labels);
    }
    Ok(())
}

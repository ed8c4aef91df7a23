//! Batches: items of a dataset as named tensors, padded to a common length.

use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};
use crate::text::batch::dataset::{Dataset, Sequence, Target};
use crate::text::rng::{Purpose, Stream};

/// What the loss leaves out.
pub(crate) const IGNORE_INDEX: i64 = -100;

/// Named tensors for one model and one step.
///
/// B is the number of items, S the padded length. Always: `input_ids` and `attention_mask`, i64
/// \[B, S\]; where the architecture has them `token_type_ids`, i64 \[B, S\]. When every item has
/// its target: `labels`, i64 \[B\] for classes and \[B, S\] for tokens (-100 is left out of the
/// loss), or `start_positions` and `end_positions`, i64 \[B\] (-100 when the item does not hold
/// the answer and the architecture has no first token to point to).
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The tensors by name.
    pub tensors: Vec<(String, Tensor)>,
    /// The item of the dataset behind each row.
    pub items: Vec<usize>,
    /// The example of the corpus behind each row.
    pub examples: Vec<usize>,
    /// Tokens that are not padding.
    pub tokens: usize,
}

impl Batch {
    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Number of rows, B.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Padded length, S.
    pub fn sequence_length(&self) -> usize {
        self.tensor("input_ids").and_then(|t| t.shape().get(1).copied()).unwrap_or(0)
    }

    fn push<T: Element>(&mut self, name: &str, shape: &[usize], data: &[T]) -> Result<()> {
        self.tensors.push((name.to_owned(), Tensor::from_slice(shape, data)?));
        Ok(())
    }
}

/// How a batch is padded and masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchPlan {
    pub(crate) pad_to_multiple_of: usize,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
}

impl Dataset {
    /// The items at `indices` as one batch, padded to a multiple of `pad_to_multiple_of` (0 and 1:
    /// to the longest), but never beyond the dataset's greatest length. `seed` decides which
    /// tokens a masked language model has to guess.
    ///
    /// Error: no index, or one out of range.
    pub fn batch(&self, indices: &[usize], pad_to_multiple_of: usize, seed: u64) -> Result<Batch> {
        self.batch_for(indices, BatchPlan { pad_to_multiple_of, seed, epoch: 0 })
    }

    pub(crate) fn batch_for(&self, indices: &[usize], plan: BatchPlan) -> Result<Batch> {
        let pick = |&i: &usize| {
            self.sequences()
                .get(i)
                .ok_or_else(|| Error::invalid(format!("item {i} of a dataset of {}", self.len())))
        };
        let items: Vec<&Sequence> = indices.iter().map(pick).collect::<Result<_>>()?;
        let longest = items.iter().map(|i| i.ids.len()).max();
        let longest = longest.ok_or_else(|| Error::invalid("a batch needs an item"))?;
        let length = self.padded_length(longest, plan.pad_to_multiple_of);
        let mut batch = Batch {
            items: indices.to_vec(),
            examples: items.iter().map(|i| i.example).collect(),
            tokens: items.iter().map(|i| i.ids.len()).sum(),
            ..Default::default()
        };
        self.push_inputs(&mut batch, &items, length, plan)?;
        push_targets(&mut batch, &items, length)?;
        Ok(batch)
    }

    /// The length of a batch whose longest item has `longest` tokens.
    pub(crate) fn padded_length(&self, longest: usize, multiple: usize) -> usize {
        let greatest = self.max_length().max(longest);
        longest.checked_next_multiple_of(multiple.max(1)).map_or(greatest, |n| n.min(greatest))
    }

    /// Inputs of all tasks, and the labels of language models, which follow from them.
    fn push_inputs(
        &self,
        batch: &mut Batch,
        items: &[&Sequence],
        length: usize,
        plan: BatchPlan,
    ) -> Result<()> {
        let shape = [items.len(), length];
        let pad = i64::from(self.pad_id());
        let mut ids = vec![pad; items.len() * length];
        let mut mask = vec![0i64; ids.len()];
        let mut types = vec![0i64; ids.len()];
        let mut labels = vec![IGNORE_INDEX; ids.len()];
        let language =
            items.iter().all(|i| matches!(i.target, Target::NextToken | Target::MaskedTokens));
        for (row, item) in items.iter().enumerate() {
            let span = row * length..row * length + item.ids.len();
            let row_ids = &mut ids[span.clone()];
            row_ids.iter_mut().zip(&item.ids).for_each(|(to, &id)| *to = i64::from(id));
            mask[span.clone()].fill(1);
            let row_types = &mut types[span.clone()];
            row_types.iter_mut().zip(&item.type_ids).for_each(|(to, &t)| *to = i64::from(t));
            match item.target {
                Target::NextToken => labels[span.clone()].copy_from_slice(&ids[span]),
                Target::MaskedTokens => {
                    let key = item.example as u64;
                    let mut rng = Stream::new(plan.seed, Purpose::Mask, plan.epoch, key);
                    self.hide(&mut ids[span.clone()], &mut labels[span], &mut rng);
                }
                _ => {}
            }
        }
        batch.push("input_ids", &shape, &ids)?;
        batch.push("attention_mask", &shape, &mask)?;
        if self.has_token_types() {
            batch.push("token_type_ids", &shape, &types)?;
        }
        if language { batch.push("labels", &shape, &labels) } else { Ok(()) }
    }

    /// Hides a share of the tokens: of the chosen 80% become the mask, 10% a random token, 10%
    /// stay (Devlin et al. 2019). At least one is chosen where any can be.
    fn hide(&self, ids: &mut [i64], labels: &mut [i64], rng: &mut Stream) {
        let Some(masking) = self.masking() else { return };
        let open: Vec<usize> =
            (0..ids.len()).filter(|&i| !masking.kept.contains(&(ids[i] as u32))).collect();
        if open.is_empty() {
            return;
        }
        let mut chosen: Vec<usize> =
            open.iter().copied().filter(|_| rng.unit() < masking.share).collect();
        if chosen.is_empty() {
            chosen.push(open[rng.below(open.len())]);
        }
        for i in chosen {
            labels[i] = ids[i];
            let kind = rng.unit();
            if kind < 0.8 {
                ids[i] = i64::from(masking.mask_id);
            } else if kind < 0.9 {
                ids[i] = rng.below(masking.vocab_size) as i64;
            }
        }
    }
}

fn push_targets(batch: &mut Batch, items: &[&Sequence], length: usize) -> Result<()> {
    let n = items.len();
    let classes: Option<Vec<i64>> = items
        .iter()
        .map(|i| if let Target::Class(c) = i.target { Some(i64::from(c)) } else { None })
        .collect();
    if let Some(classes) = classes {
        return batch.push("labels", &[n], &classes);
    }
    let spans: Option<Vec<(i64, i64)>> = items
        .iter()
        .map(|i| if let Target::Span(s, e) = i.target { Some((s, e)) } else { None })
        .collect();
    if let Some(spans) = spans {
        let (starts, ends): (Vec<i64>, Vec<i64>) = spans.into_iter().unzip();
        batch.push("start_positions", &[n], &starts)?;
        return batch.push("end_positions", &[n], &ends);
    }
    if items.iter().all(|i| matches!(i.target, Target::Tags(_))) {
        let mut labels = vec![IGNORE_INDEX; n * length];
        for (row, item) in items.iter().enumerate() {
            if let Target::Tags(tags) = &item.target {
                labels[row * length..row * length + tags.len()].copy_from_slice(tags);
            }
        }
        return batch.push("labels", &[n, length], &labels);
    }
    Ok(())
}

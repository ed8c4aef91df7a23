//! What a batch says of its examples beside what the model reads: which examples they are, which
//! words their tokens belong to, and their labels.

use crate::autodiff::{LossKind, LossSpec};
use crate::error::{Error, Result};
use crate::memory::filled;
use crate::tensor::{DType, Tensor, element_count};
use crate::train::batch::{Batch, EXAMPLE_IDS, TensorView, WORD_IDS};

/// One model's view of the examples of a step.
#[derive(Clone, Copy)]
pub(in crate::train) struct Examples<'a> {
    pub model: &'a str,
    pub spec: &'a LossSpec,
    batch: Batch<'a>,
}

impl<'a> Examples<'a> {
    pub fn new(model: &'a str, spec: &'a LossSpec, batch: Batch<'a>) -> Self {
        Self { model, spec, batch }
    }

    fn find(&self, name: &str) -> Option<TensorView<'a>> {
        self.batch.iter().find(|v| v.name == name).copied()
    }

    pub fn ids(&self) -> Option<TensorView<'a>> {
        self.find(EXAMPLE_IDS)
    }

    /// The numbers of the examples, which must be there.
    pub fn wanted_ids(&self) -> Result<TensorView<'a>> {
        self.ids().ok_or_else(|| {
            Error::not_found(format!(
                "model '{}': '{EXAMPLE_IDS}' (i64 [batch]) is missing from the batch; the teacher \
                 'memory' needs it",
                self.model
            ))
        })
    }

    /// The words of tokens, which must be there.
    pub fn wanted_words(&self) -> Result<TensorView<'a>> {
        self.words().ok_or_else(|| {
            Error::not_found(format!(
                "model '{}': '{WORD_IDS}' (i64 [batch, sequence]) is missing from the batch; the \
                 teacher 'memory' needs it",
                self.model
            ))
        })
    }

    /// Words of tokens, for the tasks where they align models.
    pub fn words(&self) -> Option<TensorView<'a>> {
        let by_words = [LossKind::TokenClassification, LossKind::QuestionAnswering];
        self.find(WORD_IDS).filter(|_| by_words.contains(&self.spec.kind))
    }

    /// Rows that can be taught: all, or where words are known those of words.
    pub fn n_taught(&self, n_rows: usize) -> usize {
        match self.words() {
            Some(words) if self.spec.kind == LossKind::TokenClassification => {
                words.ints().filter(|&w| w >= 0).count()
            }
            _ => n_rows,
        }
    }

    /// The label of a row of `n_rows`, unless it is ignored.
    pub fn label(&self, row: usize, n_rows: usize) -> Option<i64> {
        let of = |name: &str, i: usize| self.find(name).and_then(|v| int(&v, i));
        let label = match self.spec.kind {
            LossKind::QuestionAnswering => {
                let half = n_rows / 2;
                let name = if row < half { "start_positions" } else { "end_positions" };
                of(name, row % half.max(1)).filter(|&y| y >= 0)
            }
            LossKind::CausalLm => {
                let length = self.find("labels")?.shape.get(1).copied()?;
                if (row + 1).is_multiple_of(length) { None } else { of("labels", row + 1) }
            }
            _ => of("labels", row),
        };
        label.filter(|&y| y != self.spec.ignore_index)
    }
}

/// Element `i` of an i64 view.
pub(super) fn int(view: &TensorView, i: usize) -> Option<i64> {
    view.data.as_chunks::<8>().0.get(i).map(|b| i64::from_ne_bytes(*b))
}

/// Labels for a batch that has none, all ignored; empty for a batch with any label. `wanted` are
/// names, types and ranks.
pub(super) fn ignored_labels(
    wanted: Vec<(String, DType, Option<usize>)>,
    ignore_index: i64,
    batch: Batch,
) -> Result<Vec<(String, Tensor)>> {
    if batch.iter().any(|v| wanted.iter().any(|(name, ..)| name == v.name)) {
        return Ok(Vec::new());
    }
    let of_rank = |rank: usize| batch.iter().find(|v| v.shape.len() >= rank);
    let mut made = Vec::with_capacity(wanted.len());
    for (name, _, rank) in wanted {
        let rank = rank.unwrap_or(1);
        let Some(view) = of_rank(rank) else { return Ok(Vec::new()) };
        let shape = &view.shape[..rank];
        let n = element_count(shape)?;
        made.push((name, Tensor::from_slice(shape, &filled(n, ignore_index)?)?));
    }
    Ok(made)
}

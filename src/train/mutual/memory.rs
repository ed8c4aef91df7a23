//! The memory of every example's predictions (temporal ensembling, Laine and Aila 2017).
//!
//! With q the models' mean prediction at a visit of an example and α the decay:
//! S ← α S + q, N ← α N + 1, and the target is S / N. That is the bias-corrected form of the
//! paper, and for α = 1 the plain mean over visits.

use std::collections::HashMap;
use std::path::Path;

use super::prediction::Prediction;
use super::target::Target;
use crate::checkpoint::weights::{self, View, Weights};
use crate::error::{Context, Error, Result};
use crate::tensor::DType;

/// Sums of predictions by example.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    n_classes: usize,
    offsets: HashMap<i64, usize>,
    /// Of each example N, then S.
    sums: Vec<f32>,
}

impl Memory {
    fn stride(&self) -> usize {
        self.n_classes + 1
    }

    /// Gives what is known of the examples, one a row, to a target.
    pub fn recall(&self, ids: impl Iterator<Item = i64>, target: &mut Target) {
        for (row, id) in ids.enumerate() {
            if let Some(&at) = self.offsets.get(&id) {
                let entry = &self.sums[at..at + self.stride()];
                target.add_sum(row, &entry[1..], entry[0]);
            }
        }
    }

    /// Classes of the predictions; 0 before the first visit.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Adds a visit of examples, one a row: the models' predictions of one shape, with weights
    /// that sum to 1. Beyond `limit` examples it is an error and nothing changes.
    pub fn visit<'a>(
        &mut self,
        ids: impl Iterator<Item = i64> + Clone,
        models: impl Iterator<Item = (f32, &'a Prediction)> + Clone,
        (decay, limit): (f64, usize),
    ) -> Result<()> {
        let Some((_, first)) = models.clone().next() else { return Ok(()) };
        let stride = first.n_classes + 1;
        let mut n_known = self.offsets.len();
        // Twice in one batch is once too many here, which a limit can bear.
        n_known += ids.clone().filter(|id| !self.offsets.contains_key(id)).count();
        if n_known > limit {
            return Err(Error::state(format!(
                "mutual learning's memory is full: the option 'mutual.memory_examples' allows \
                 {limit} examples; raise it or choose another teacher"
            )));
        }
        self.n_classes = first.n_classes;
        let decay = decay as f32;
        for (row, id) in ids.enumerate() {
            let next = self.sums.len();
            let at = *self.offsets.entry(id).or_insert(next);
            if at == next {
                self.sums.resize(next + stride, 0.0);
            }
            let entry = &mut self.sums[at..at + stride];
            entry.iter_mut().for_each(|s| *s *= decay);
            entry[0] += 1.0;
            for (weight, prediction) in models.clone() {
                let sums = entry[1..].iter_mut().zip(prediction.row(row));
                sums.for_each(|(s, q)| *s += weight * q);
            }
        }
        Ok(())
    }

    /// Writes all in the order of the examples' numbers.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut all: Vec<(i64, usize)> = self.offsets.iter().map(|(&id, &at)| (id, at)).collect();
        all.sort_unstable();
        let ids: Vec<i64> = all.iter().map(|&(id, _)| id).collect();
        let sums: Vec<f32> =
            all.iter().flat_map(|&(_, at)| self.sums[at..at + self.stride()].to_vec()).collect();
        let (shape, both) = ([ids.len()], [ids.len(), self.stride()]);
        let tensors = [
            (
                "examples",
                View { dtype: DType::I64, shape: &shape, bytes: bytemuck::cast_slice(&ids) },
            ),
            ("sums", View { dtype: DType::F32, shape: &both, bytes: bytemuck::cast_slice(&sums) }),
        ];
        weights::write(path, tensors, &[])
    }

    /// Reads what [`Memory::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let file = Weights::read(path)?;
            let (ids, sums) = (file.tensor("examples")?, file.tensor("sums")?);
            let &[n, stride] = sums.shape() else {
                return Err(Error::shape("the sums of predictions are no matrix"));
            };
            let ids = ids.as_slice::<i64>()?;
            if ids.len() != n || stride == 0 {
                return Err(Error::shape(format!("{n} sums of predictions for {} ids", ids.len())));
            }
            let offsets = ids.iter().enumerate().map(|(i, &id)| (id, i * stride)).collect();
            let sums = sums.as_slice::<f32>()?.to_vec();
            Ok(Self { n_classes: stride - 1, offsets, sums })
        };
        read().context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(all: &[i64]) -> impl Iterator<Item = i64> + Clone + '_ {
        all.iter().copied()
    }

    #[test]
    fn decayed_means_by_example_within_the_limit() {
        let mut memory = Memory::default();
        let visit = |memory: &mut Memory, examples: &[i64], p: &[f32]| {
            let p = Prediction { n_classes: 2, probabilities: p.to_vec() };
            let q = Prediction { n_classes: 2, probabilities: vec![0.5; p.probabilities.len()] };
            memory.visit(ids(examples), [(0.75, &p), (0.25, &q)].into_iter(), (0.6, 3))
        };
        visit(&mut memory, &[7, -2], &[0.5, 0.5, 0.25, 0.75]).unwrap();
        visit(&mut memory, &[7], &[1.0, 0.0]).unwrap();
        let check = |memory: &Memory| {
            let mut target = Target::default();
            target.begin((3, 2));
            memory.recall(ids(&[-2, 5, 7]), &mut target);
            let means = target.means();
            let expected = [Some(0.3125), None, Some((0.6 * 0.5 + 0.875) / 1.6)];
            for (mean, expected) in means.iter().zip(expected) {
                match (mean, expected) {
                    (Some(mean), Some(e)) => assert!((mean[0] - e).abs() < 1e-6, "{means:?}"),
                    (mean, expected) => assert!(mean.is_none() && expected.is_none(), "{means:?}"),
                }
            }
        };
        check(&memory);
        let full = visit(&mut memory, &[8, 9], &[0.5; 4]).unwrap_err();
        assert!(full.message().contains("memory_examples"), "{full}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.safetensors");
        memory.write(&path).unwrap();
        check(&Memory::read(&path).unwrap());
        Memory::default().write(&path).unwrap();
        assert!(Memory::read(&path).unwrap().offsets.is_empty());
    }
}

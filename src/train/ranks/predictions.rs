//! Predictions of models that run on different ranks.

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::parts::Parts;
use super::wire::GradientDtype;
use crate::error::{Error, Result};
use crate::train::mutual::prediction::Prediction;

/// The probabilities of all models, each with its rank.
struct Probabilities<'a> {
    owners: &'a [usize],
    predictions: &'a mut [Prediction],
}

impl Probabilities<'_> {
    /// Calls `f` for each piece of a rank's numbers among `first..first + len`, with its place
    /// counted from `first`.
    fn each(
        &mut self,
        rank: usize,
        first: usize,
        len: usize,
        mut f: impl FnMut(&mut [f32], usize),
    ) {
        let (mut start, end) = (0, first + len);
        let all = self.predictions.iter_mut().zip(self.owners);
        for (prediction, _) in all.filter(|(_, owner)| **owner == rank) {
            let n = prediction.probabilities.len();
            let (from, to) = (first.max(start), end.min(start + n));
            if from < to {
                f(&mut prediction.probabilities[from - start..to - start], from - first);
            }
            start += n;
        }
    }
}

impl Parts for Probabilities<'_> {
    fn lengths(&self, n: usize) -> Vec<usize> {
        let mut lengths = vec![0; n];
        for (prediction, &owner) in self.predictions.iter().zip(self.owners) {
            lengths[owner] += prediction.probabilities.len();
        }
        lengths
    }

    fn read(&mut self, rank: usize, first: usize, into: &mut [f32]) {
        self.each(rank, first, into.len(), |own, at| into[at..at + own.len()].copy_from_slice(own));
    }

    fn write(&mut self, rank: usize, first: usize, from: &[f32]) {
        self.each(rank, first, from.len(), |own, at| {
            own.copy_from_slice(&from[at..at + own.len()])
        });
    }
}

impl Ranks {
    /// Takes the predictions of the models that run on other ranks.
    pub(in crate::train) fn exchange_predictions(
        &mut self,
        predictions: &mut [Prediction],
    ) -> Result<()> {
        let Some(owners) = self.owners.clone() else { return Ok(()) };
        let mut sizes = vec![Numbers::default(); self.n_models];
        for (i, prediction) in predictions.iter().enumerate().filter(|(i, _)| self.runs(*i)) {
            sizes[i][0] = prediction.probabilities.len() as f64;
            sizes[i][1] = prediction.n_classes as f64;
        }
        let sizes = self.exchange_in_group(Call::PassPart, &sizes)?.group;
        for (i, prediction) in predictions.iter_mut().enumerate().filter(|(i, _)| !self.runs(*i)) {
            let n = sizes[i][0] as usize;
            prediction.n_classes = sizes[i][1] as usize;
            prediction.probabilities.clear();
            prediction.probabilities.try_reserve(n)?;
            prediction.probabilities.resize(n, 0.0);
        }
        let parts = self.parts.as_mut().ok_or_else(|| Error::internal("no room to exchange"))?;
        let mut all = Probabilities { owners: &owners, predictions };
        self.comm.with(|comm| parts.exchange(comm, &mut all, GradientDtype::F32))
    }
}

//! Which examples an epoch has: each once, or drawn at random by class or by weight.

use crate::error::{Error, Result, count};
use crate::memory::Gather;
use crate::text::batch::dataset::{Dataset, Target};
use crate::text::rng::{Purpose, Stream};

/// How the examples of an epoch are chosen. Those that are drawn are drawn independently and with
/// replacement, as PyTorch's `WeightedRandomSampler` does: an example may occur several times in an
/// epoch, and another not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sampling {
    /// Each example once.
    #[default]
    EachOnce,
    /// Drawn so that all classes are equally likely, and within a class all examples.
    ClassBalanced,
    /// Drawn with a probability in proportion to the weight of the example, by its number in the
    /// corpus. Weights are finite and at least 0, and one is above 0.
    Weighted(Vec<f64>),
}

/// Most examples that are drawn for an epoch.
pub(super) const MAX_SAMPLES: usize = 1 << 28;

impl Sampling {
    /// Whether examples are drawn.
    pub(super) fn draws(&self) -> bool {
        *self != Self::EachOnce
    }

    /// Adds what decides the draws, apart from the data, to a checksum.
    pub(super) fn update(&self, hasher: &mut crc32fast::Hasher) {
        match self {
            Self::EachOnce => hasher.update(b"once"),
            Self::ClassBalanced => hasher.update(b"class"),
            Self::Weighted(weights) => {
                weights.iter().for_each(|w| hasher.update(&w.to_bits().to_le_bytes()));
            }
        }
    }

    /// Whether every sequence of a dataset has a weight.
    pub(super) fn check(&self, data: &Dataset) -> Result<()> {
        match self {
            Self::EachOnce => Ok(()),
            Self::ClassBalanced if data.is_packed() => {
                Err(Error::invalid("class-balanced sampling: text has no classes"))
            }
            Self::ClassBalanced => {
                let without = |s: &&super::dataset::Sequence| class(&s.target).is_none();
                match data.sequences().iter().find(without) {
                    None => Ok(()),
                    Some(s) => Err(Error::invalid(format!(
                        "class-balanced sampling: example {} has no class",
                        s.example
                    ))),
                }
            }
            Self::Weighted(weights) => {
                let n = data.n_examples();
                if data.is_packed() {
                    return Err(Error::invalid(
                        "example_weights: packed text has no examples to draw; set pack to false",
                    ));
                }
                if weights.len() != n {
                    let given = weights.len();
                    return Err(Error::invalid(format!(
                        "{given} example_weights for {}",
                        count(n, "example")
                    )));
                }
                let bad = |w: &f64| !(w.is_finite() && *w >= 0.0);
                if let Some(i) = weights.iter().position(bad) {
                    return Err(Error::invalid(format!(
                        "example_weights[{i}] is {}; it must be finite and at least 0",
                        weights[i]
                    )));
                }
                let total: f64 = data.sequences().iter().map(|s| weights[s.example]).sum();
                if total > 0.0 && total.is_finite() {
                    return Ok(());
                }
                Err(Error::invalid(format!("the example_weights have a sum of {total}")))
            }
        }
    }

    /// `n` sequences, drawn by seed, epoch and dataset; the data were checked.
    pub(super) fn draw(
        &self,
        data: &Dataset,
        n: usize,
        (seed, epoch, dataset): (u64, u64, u64),
    ) -> Result<Vec<usize>> {
        let mut counts = vec![0usize; data.labels().len()];
        for class in data.sequences().iter().filter_map(|s| class(&s.target)) {
            counts[class] += 1;
        }
        let weight = |s: &super::dataset::Sequence| match self {
            Self::EachOnce => 1.0,
            Self::ClassBalanced => class(&s.target).map_or(0.0, |c| 1.0 / counts[c] as f64),
            Self::Weighted(weights) => weights.get(s.example).copied().unwrap_or(0.0),
        };
        let mut total = 0.0;
        let up_to = |s| {
            total += weight(s);
            total
        };
        let sums: Vec<f64> = data.sequences().iter().map(up_to).gathered()?;
        let total = sums.last().copied().unwrap_or(0.0);
        // Rounding may reach the total; the last sequence with a weight stands for it.
        let last = sums.partition_point(|&sum| sum < total);
        let mut rng = Stream::new(seed, Purpose::Draw, epoch, dataset);
        let mut one = || {
            let at = rng.unit() * total;
            sums.partition_point(|&sum| sum <= at).min(last)
        };
        (0..n).map(|_| one()).gathered()
    }
}

fn class(target: &Target) -> Option<usize> {
    match target {
        Target::Class(class) => Some(*class as usize),
        _ => None,
    }
}

//! Mutual learning: models that see the same examples learn from each other's predictions.

mod prediction;

pub(super) use prediction::{Peers, Prediction, feed};

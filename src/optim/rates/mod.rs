//! What a learning rate is made of: schedules, adaptive rates, the paper's formulas.

pub(in crate::optim) mod adaptive;
pub(in crate::optim) mod paper;
pub(in crate::optim) mod schedule;

//! What a learning rate is made of: schedules, adaptive rates, the paper's formulas.

pub(in crate::optim) mod adaptive;
pub(in crate::optim) mod factors;
pub(in crate::optim) mod paper;
pub(in crate::optim) mod schedule;
pub(in crate::optim) mod state;
pub(in crate::optim) mod validation;

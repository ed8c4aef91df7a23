//! The published implementation's multiplier, scheduler and adaptive rate, as they were measured.

use crate::optim::options::PublishedMultiplier;
use std::f64::consts::PI;

/// The optimizer's own factor at step `s` ≥ 0 with `accumulation` micro-batches a step: linear
/// warm-up, then 1 or a cosine of period 20000·accumulation that never falls below 0.1.
pub fn paper_multiplier(m: &PublishedMultiplier, s: u64, accumulation: u32) -> f64 {
    if s < m.warmup_steps {
        return s as f64 / m.warmup_steps.max(1) as f64;
    }
    if !m.cosine {
        return 1.0;
    }
    let x = (s - m.warmup_steps).max(1) as f64 / (10_000.0 * f64::from(accumulation));
    (0.5 * (1.0 + (PI * x).cos())).max(0.1)
}

/// The scheduler's factor at its counter `e`, which counts micro-batches from 0.
pub fn paper_scale(e: u64, total: u64, warmup: u64, floor: f64) -> f64 {
    if e < warmup {
        return e as f64 / warmup.max(1) as f64;
    }
    let x = (e - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    (0.5 * (1.0 + (PI * x).cos())).max(floor)
}

/// The published rate after an update with the loss curve's slope.
pub fn paper_rate(rate: f64, slope: f64) -> f64 {
    0.9 * rate + 0.1 / (1.0 + slope.abs())
}

/// What the published rate makes of the learning rate.
pub fn paper_rate_factor(rate: f64) -> f64 {
    (1.0 / rate).clamp(0.5, 1.5)
}

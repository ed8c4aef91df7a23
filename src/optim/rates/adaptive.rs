//! Adaptive learning rates, from a model's own losses: the published rule and the project's.
//! The formulas stand in docs/optimizer.md, "Rates from losses".

use crate::optim::options::{AdaptiveLr, Options};
use crate::optim::rates::paper::{paper_rate, paper_rate_factor};
use std::collections::VecDeque;

/// Relative change over a window that counts as half: smaller ones are rounding.
const SMALL: f64 = 1e-3;

/// Losses and rates of all models.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdaptiveRates {
    window: usize,
    losses: Vec<VecDeque<f64>>,
    /// Published rule: r. Project's rule: the smoothed factor itself.
    state: Vec<f64>,
    /// Factor in force.
    factor: Vec<f64>,
}

/// Direction and certainty of a loss curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Least-squares slope per loss.
    pub slope: f64,
    /// Fall over the window, relative to its mean size; negative when rising.
    pub progress: f64,
    /// In [−1, 1]: the fall against its own noise; −1 is surely rising.
    pub certainty: f64,
}

/// Least-squares line through equally spaced losses, at least two.
pub fn trend<'a>(losses: impl ExactSizeIterator<Item = &'a f64> + Clone) -> Trend {
    let n = losses.len() as f64;
    let mean = losses.clone().sum::<f64>() / n;
    let middle = (n - 1.0) / 2.0;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, y) in losses.clone().enumerate() {
        let x = i as f64 - middle;
        xy += x * (y - mean);
        xx += x * x;
    }
    let slope = xy / xx;
    let residual = |(i, y): (usize, &f64)| (y - mean - slope * (i as f64 - middle)).powi(2);
    let rest: f64 = losses.clone().enumerate().map(residual).sum();
    let size = losses.map(|y| y.abs()).sum::<f64>() / n;
    let fall = -slope * (n - 1.0);
    let noise = (rest / (n - 2.0).max(1.0) / xx).sqrt() * (n - 1.0);
    let length = (fall * fall + 4.0 * noise * noise).sqrt();
    Trend {
        slope,
        progress: if size > 0.0 { fall / size } else { 0.0 },
        certainty: if length > 0.0 { fall / length } else { 0.0 },
    }
}

/// Target factor of a model from its own trend and its peers' mean progress.
pub fn relative_factor(own: Trend, peers: f64) -> f64 {
    let gain = own.progress.max(0.0);
    let share = (gain + SMALL) / (gain + peers + 2.0 * SMALL);
    let lead = (2.0 * share - 1.0).max(0.0);
    let stall = 0.25 * (1.0 - own.certainty.abs()) * peers / (peers + gain + SMALL);
    let loss = (-own.progress).max(0.0);
    let rise = (-own.certainty).max(0.0) * loss / (loss + SMALL);
    (1.0 + stall + 0.5 * (own.certainty.max(0.0) * lead - rise)).clamp(0.5, 1.5)
}

impl AdaptiveRates {
    pub fn new(models: usize, o: &Options) -> Self {
        let window = match o.adaptive_lr {
            AdaptiveLr::None => 1,
            AdaptiveLr::Published | AdaptiveLr::Relative => o.adaptive_lr_window,
        };
        Self {
            window,
            losses: (0..models).map(|_| VecDeque::with_capacity(window)).collect(),
            state: vec![1.0; models],
            factor: vec![1.0; models],
        }
    }

    /// Logs a finite loss.
    pub fn log(&mut self, o: &Options, model: usize, loss: f64) {
        if o.adaptive_lr == AdaptiveLr::None {
            return;
        }
        let losses = &mut self.losses[model];
        if losses.len() == self.window {
            losses.pop_front();
        }
        losses.push_back(loss);
    }

    /// Ends micro-batch `n` ≥ 1. The published factor is the one before this micro-batch's update.
    pub fn end_micro_batch(&mut self, o: &Options, n: u64) {
        let (every, window) = (o.adaptive_lr_every, o.adaptive_lr_window);
        match o.adaptive_lr {
            AdaptiveLr::None => {}
            AdaptiveLr::Published => {
                for (factor, r) in self.factor.iter_mut().zip(&self.state) {
                    *factor = paper_rate_factor(*r);
                }
                if n.is_multiple_of(every) {
                    for (r, losses) in self.state.iter_mut().zip(&self.losses) {
                        if losses.len() >= window {
                            *r = paper_rate(*r, trend(losses.iter()).slope);
                        }
                    }
                }
            }
            AdaptiveLr::Relative => {
                if n.is_multiple_of(every) {
                    self.relative(window);
                }
            }
        }
    }

    fn relative(&mut self, window: usize) {
        let enough = (window / 2).max(4);
        let n = self.losses.len();
        let trend_of =
            |losses: &VecDeque<f64>| (losses.len() >= enough).then(|| trend(losses.iter()));
        let (mut total, mut seen) = (0.0, 0.0);
        for losses in &self.losses {
            if let Some(t) = trend_of(losses) {
                total += t.certainty.max(0.0) * t.progress.max(0.0);
                seen += 1.0;
            }
        }
        for i in 0..n {
            let Some(own) = trend_of(&self.losses[i]) else { continue };
            let mine = own.certainty.max(0.0) * own.progress.max(0.0);
            let peers = if seen > 1.0 { (total - mine) / (seen - 1.0) } else { mine };
            let target = relative_factor(own, peers);
            let speed = if target < self.state[i] { 0.5 } else { 0.1 };
            self.state[i] += speed * (target - self.state[i]);
            self.factor[i] = self.state[i];
        }
    }

    /// A model's last losses.
    pub fn losses(&self, model: usize) -> &VecDeque<f64> {
        &self.losses[model]
    }

    /// The factor in force.
    pub fn factor(&self, model: usize) -> f64 {
        self.factor[model]
    }

    /// The published r, or the project's smoothed factor.
    pub fn state(&self, model: usize) -> f64 {
        self.state[model]
    }

    /// Every model's losses, and its (state, factor).
    pub fn history(
        &self,
    ) -> (impl Iterator<Item = &VecDeque<f64>>, impl Iterator<Item = (f64, f64)>) {
        let rates = self.state.iter().copied().zip(self.factor.iter().copied());
        (self.losses.iter(), rates)
    }

    /// Restores what [`AdaptiveRates::history`] gave; longer windows lose their oldest losses.
    pub fn restore(&mut self, losses: Vec<VecDeque<f64>>, rates: Vec<(f64, f64)>) {
        for (mine, theirs) in self.losses.iter_mut().zip(losses) {
            mine.clear();
            mine.extend(theirs.iter().skip(theirs.len().saturating_sub(self.window)));
        }
        (self.state, self.factor) = rates.into_iter().unzip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors after 200 losses of each curve, side by side.
    fn run(curves: &[&dyn Fn(f64) -> f64]) -> Vec<f64> {
        let rule = Options::default();
        let mut t = AdaptiveRates::new(curves.len(), &rule);
        for call in 1..=200u64 {
            for (i, curve) in curves.iter().enumerate() {
                t.log(&rule, i, curve(call as f64));
            }
            t.end_micro_batch(&rule, call);
        }
        (0..curves.len()).map(|i| t.factor(i)).collect()
    }

    /// A fixed sequence in [−1, 1] without trend.
    fn noise(x: f64) -> f64 {
        (x * 12.9898).sin() * (x * 78.233).cos()
    }

    fn fast(x: f64) -> f64 {
        2.0 * (-x / 60.0).exp()
    }
    fn slow(x: f64) -> f64 {
        2.0 - x / 1000.0
    }

    #[test]
    fn the_fast_are_helped_and_the_slow_not_slowed() {
        let f = run(&[&fast, &slow]);
        assert!(f[0] > 1.2, "{f:?}");
        assert!(f[1] >= 0.99 && f[1] < 1.1, "{f:?}");
    }

    #[test]
    fn the_stalled_are_kept_going_and_the_diverging_slowed() {
        let stalled = |x: f64| 1.5 + 0.02 * noise(x);
        let diverging = |x: f64| 1.0 + x / 100.0 + 0.05 * noise(x);
        let f = run(&[&fast, &stalled, &diverging]);
        assert!(f[1] > 1.1, "{f:?}");
        assert!(f[2] < 0.6, "{f:?}");
    }

    #[test]
    fn equal_progress_flat_curves_and_pure_noise_stay_near_one() {
        let f = run(&[&fast, &fast]);
        assert!((f[0] - 1.0).abs() < 0.02 && (f[1] - 1.0).abs() < 0.02, "{f:?}");
        let f = run(&[&|_| 0.3, &|_| 0.7]);
        assert!(f.iter().all(|f| (f - 1.0).abs() < 1e-6), "{f:?}");
        let f = run(&[&|x| 1.0 + 0.3 * noise(x), &|x| 1.0 + 0.3 * noise(x + 0.5)]);
        assert!(f.iter().all(|f| (f - 1.0).abs() < 0.2), "{f:?}");
    }

    #[test]
    fn the_scale_of_the_loss_does_not_matter() {
        let wavy = |x: f64| fast(x) + 0.1 * noise(x);
        let a = run(&[&wavy, &slow]);
        let b = run(&[&|x| 1e4 * wavy(x), &|x| 1e-3 * slow(x)]);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?} {b:?}");
    }

    #[test]
    fn one_model_alone_is_left_alone_unless_it_diverges() {
        assert!((run(&[&fast])[0] - 1.0).abs() < 1e-3);
        assert!(run(&[&|x| x])[0] < 0.6);
    }

    #[test]
    fn the_published_rule_only_raises() {
        let rule = Options { adaptive_lr_every: 1, adaptive_lr_window: 10, ..Options::paper() };
        let factor = |curve: &dyn Fn(f64) -> f64| {
            let mut t = AdaptiveRates::new(1, &rule);
            for call in 1..=100u64 {
                t.log(&rule, 0, curve(call as f64));
                t.end_micro_batch(&rule, call);
            }
            t.factor(0)
        };
        assert!(factor(&|x| x) > 1.4); // diverging, and yet raised
        assert!(factor(&|x| -x) > 1.4);
        assert!((factor(&|_| 1.0) - 1.0).abs() < 1e-12);
    }
}

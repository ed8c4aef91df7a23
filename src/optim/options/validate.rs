//! The ranges of all options.

use crate::error::{Error, Result};
use crate::optim::options::{Clip, Convergence, Decay, Method, MomentType, Options, Weighting};

impl Options {
    /// Checks every range; the error names the field and what it may be.
    pub fn validate(&self) -> Result<()> {
        let unit = |x: f64| (0.0..1.0).contains(&x);
        let closed = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let natural = |x: f64| x.is_finite() && x >= 0.0;
        let checks = [
            (natural(self.learning_rate), "learning_rate", "finite and >= 0"),
            (unit(self.beta1), "beta1", "in [0, 1)"),
            (unit(self.beta2), "beta2", "in [0, 1)"),
            (natural(self.eps), "eps", "finite and >= 0"),
            (natural(self.weight_decay), "weight_decay", "finite and >= 0"),
            (unit(self.momentum), "momentum", "in [0, 1)"),
            (positive(self.muon_scale), "muon_scale", "> 0"),
            (closed(self.alpha), "alpha", "in [0, 1]"),
            (closed(self.beta), "beta", "in [0, 1]"),
            (
                self.method != Method::Muon || self.moments == MomentType::F32,
                "moments",
                "f32 with the method muon",
            ),
            (self.accumulation >= 1, "accumulation", ">= 1"),
            (self.threads <= 1024, "threads", "at most 1024"),
            (self.barrier.is_none_or(natural), "barrier", "finite and >= 0"),
            (
                self.mutual.is_none_or(|m| natural(m.lambda) && positive(m.temperature)),
                "mutual",
                "lambda >= 0 and temperature > 0",
            ),
            (
                match self.clip {
                    Clip::None => true,
                    Clip::Norm(c) | Clip::Value(c) => positive(c),
                },
                "clip",
                "> 0",
            ),
            (
                match self.convergence {
                    Convergence::None => true,
                    Convergence::Published { every, window } => every > 0 && window >= 2,
                    Convergence::Relative { every, window } => every > 0 && window >= 4,
                },
                "convergence",
                "every > 0 and a window of at least 2 (published) or 4 (relative) losses",
            ),
            (
                match self.weighting {
                    Weighting::Fixed => true,
                    Weighting::Validation { temperature, limit } => {
                        positive(temperature) && limit.is_finite() && limit >= 1.0
                    }
                },
                "weighting",
                "temperature > 0 and limit >= 1",
            ),
            (self.schedule.decay.is_valid(), "schedule.decay", "within its documented ranges"),
            (
                self.groups
                    .iter()
                    .all(|g| g.lr_scale.is_none_or(natural) && g.weight_decay.is_none_or(natural)),
                "groups",
                "made of lr_scale >= 0 and weight_decay >= 0",
            ),
        ];
        match checks.iter().find(|(ok, _, _)| !ok) {
            Some((_, field, range)) => {
                Err(Error::invalid(format!("optimizer option '{field}' must be {range}")))
            }
            None => Ok(()),
        }
    }
}

impl Decay {
    /// Whether the fields lie in their ranges.
    pub fn is_valid(&self) -> bool {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        match *self {
            Self::Constant => true,
            Self::Linear { floor, .. }
            | Self::Cosine { floor, .. }
            | Self::Published { floor, .. } => unit(floor),
            Self::Polynomial { floor, power, .. } => {
                unit(floor) && power > 0.0 && power.is_finite()
            }
            Self::OneCycle { peak, start_div, final_div, .. } => {
                peak > 0.0 && peak < 1.0 && start_div >= 1.0 && final_div >= 1.0
            }
            Self::Plateau { factor, floor, threshold, .. } => {
                factor > 0.0 && factor < 1.0 && unit(floor) && threshold >= 0.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_field() {
        let check = |f: fn(&mut Options), name: &str| {
            let mut options = Options::default();
            f(&mut options);
            let text = options.validate().unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        };
        check(|o| o.alpha = 1.5, "alpha");
        check(|o| o.learning_rate = f64::NAN, "learning_rate");
        check(|o| o.clip = Clip::Norm(0.0), "clip");
        check(|o| o.accumulation = 0, "accumulation");
        check(|o| o.convergence = Convergence::Relative { every: 0, window: 9 }, "convergence");
    }
}

//! What options may be: each by its schema, and some together.

use super::schema::{Schema, options_schema};
use super::{AdaptiveLr, LrSchedule, Method, MomentDtype, Options, SharePolicy, ShareRule, Start};
use crate::error::{Error, Result};

impl Options {
    /// Checks every range, and what options say together; the error names the field and what it
    /// may be.
    pub fn validate(&self) -> Result<()> {
        self.check_fields()?;
        let ends = !matches!(self.lr_schedule, LrSchedule::Constant | LrSchedule::Plateau);
        let custom = self.share_policy == SharePolicy::Custom;
        let influence = self.share_rule == ShareRule::Influence;
        let decays = matches!(
            self.lr_schedule,
            LrSchedule::Linear | LrSchedule::Cosine | LrSchedule::Polynomial
        );
        if decays && self.total_steps > 0 && self.warmup_steps > self.total_steps {
            return Err(Error::invalid(format!(
                "warmup_steps ({}) must not exceed total_steps ({}), the step at which the \
                 schedule ends",
                self.warmup_steps, self.total_steps
            )));
        }
        let checks = [
            (
                self.max_grad_norm == 0.0 || self.max_grad_value == 0.0,
                "max_grad_norm (1 by default) and max_grad_value are both set; one must be 0",
            ),
            (
                self.method != Method::Muon || self.moment_dtype == MomentDtype::F32,
                "moment_dtype must be f32 with the method muon",
            ),
            (
                self.adaptive_lr != AdaptiveLr::Relative || self.adaptive_lr_window >= 4,
                "adaptive_lr_window must be at least 4 with adaptive_lr relative",
            ),
            (
                !ends || self.total_steps > 0,
                "total_steps must be at least 1 with lr_schedule linear, cosine, polynomial, \
                 one_cycle or published",
            ),
            (
                !custom || !self.share_groups.is_empty(),
                "share_policy is custom, and share_groups names no group",
            ),
            (
                custom || self.share_groups.is_empty(),
                "share_groups is set, and share_policy is not custom",
            ),
            (
                !influence || !self.share_influence.is_empty(),
                "share_rule is influence, and share_influence has no entry",
            ),
            (
                influence || self.share_influence.is_empty(),
                "share_influence is set, and share_rule is not influence",
            ),
            (
                matches!(self.start, Start::Pretrained | Start::Auto) || self.start_from.is_none(),
                "start_from is set, and start is neither pretrained nor auto",
            ),
        ];
        match checks.into_iter().find(|(ok, _)| !ok) {
            Some((_, text)) => Err(Error::invalid(text)),
            None => Ok(()),
        }
    }

    /// Checks each option by itself.
    pub(crate) fn check_fields(&self) -> Result<()> {
        // JSON has neither NaN nor infinity: they become null, which these may be, too.
        let groups = self.param_groups.iter().enumerate();
        let optional = groups.flat_map(|(i, g)| {
            let path = |name: &str| format!("param_groups[{i}].{name}");
            [(path("lr_scale"), g.lr_scale), (path("weight_decay"), g.weight_decay)]
        });
        let others = [
            ("max_loss_increase".to_owned(), self.max_loss_increase),
            ("ema_decay".to_owned(), self.ema_decay),
        ];
        for (path, value) in optional.chain(others) {
            if value.is_some_and(|x| !x.is_finite()) {
                return Err(Error::invalid(format!("{path} is NaN or infinite")));
            }
        }
        let all = serde_json::to_value(self)
            .map_err(|e| Error::invalid("options cannot be written").with_source(e))?;
        Schema::root(options_schema()).check_at(&all, "", "NaN or infinite").map_err(Error::invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mutual, ParamGroup, ShareGroup};
    use super::*;

    #[test]
    fn the_error_names_the_field() {
        let check = |f: fn(&mut Options), text: &str| {
            let mut options = Options::default();
            f(&mut options);
            let e = options.validate().unwrap_err();
            assert!(e.message().contains(text), "{e}");
        };
        check(|o| o.share_alpha = 1.5, "share_alpha must be a number in [0, 1], not 1.5");
        check(|o| o.learning_rate = f64::NAN, "learning_rate must be a number >= 0, not NaN");
        check(|o| o.max_grad_norm = -1.0, "max_grad_norm must be");
        check(
            |o| o.max_grad_value = 1.0,
            "max_grad_norm (1 by default) and max_grad_value are both set",
        );
        check(|o| o.gradient_accumulation_steps = 0, "gradient_accumulation_steps must be");
        check(|o| o.adaptive_lr_every = 0, "adaptive_lr_every must be");
        check(|o| o.adaptive_lr_window = 3, "adaptive_lr_window must be");
        check(|o| o.lr_schedule = LrSchedule::Linear, "total_steps must be");
        check(
            |o| (o.lr_schedule, o.warmup_steps, o.total_steps) = (LrSchedule::Cosine, 3, 2),
            "warmup_steps (3) must not exceed total_steps (2)",
        );
        check(|o| o.share_policy = SharePolicy::Custom, "share_groups names no group");
        check(
            |o| o.share_groups.push(ShareGroup { name: "g".into(), members: Vec::new() }),
            "share_groups[0].members must be an array of at least 2 elements",
        );
        check(|o| o.share_rule = ShareRule::Influence, "share_influence has no entry");
        check(|o| o.max_loss_increase = Some(f64::NAN), "max_loss_increase is NaN");
        check(|o| o.ema_decay = Some(f64::NAN), "ema_decay is NaN");
        check(|o| o.ema_decay = Some(1.0), "ema_decay must be");
        check(
            |o| (o.start, o.start_from) = (Start::Own, Some("bert".into())),
            "start_from is set, and start is neither",
        );
        let check = |mutual: Mutual, name: &str| {
            let options = Options { mutual: Some(mutual), ..Options::default() };
            let e = options.validate().unwrap_err();
            assert!(e.message().starts_with(&format!("mutual.{name} must be ")), "{e}");
        };
        let d = Mutual::default();
        check(Mutual { weight: Some(-1.0), ..d.clone() }, "weight");
        check(Mutual { temperature: 0.0, ..d.clone() }, "temperature");
        check(Mutual { confidence_threshold: 1.5, ..d.clone() }, "confidence_threshold");
        check(Mutual { ramp_up_fraction: 1.5, ..d.clone() }, "ramp_up_fraction");
        check(Mutual { ema_decay: 1.0, ..d.clone() }, "ema_decay");
        check(Mutual { memory_decay: 0.0, ..d.clone() }, "memory_decay");
        check(Mutual { memory_decay: 1.1, ..d.clone() }, "memory_decay");
        check(Mutual { memory_examples: 0, ..d.clone() }, "memory_examples");
        check(Mutual { memory_bytes: 0, ..d }, "memory_bytes");
    }

    #[test]
    fn more_errors_name_the_field() {
        let check = |f: fn(&mut Options), text: &str| {
            let mut options = Options::default();
            f(&mut options);
            let e = options.validate().unwrap_err();
            assert!(e.message().contains(text), "{e}");
        };
        check(
            |o| {
                let lr_scale = Some(f64::INFINITY);
                o.param_groups.push(ParamGroup { lr_scale, ..ParamGroup::default() });
            },
            "param_groups[0].lr_scale is NaN or infinite",
        );
        check(
            |o| (o.method, o.moment_dtype) = (Method::Muon, MomentDtype::BF16),
            "moment_dtype must be f32",
        );
    }
}

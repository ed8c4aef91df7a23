//! Options of a trainer: the common ones as fields, all others as JSON.

use std::ffi::c_char;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::ffi::core::args::{choice, flag, optional_text};
use crate::ffi::core::guard::guard_or;
use crate::optim::{self, Clip, Convergence, Decay, NonFinite, Policy, Rule};
use crate::runtime::Device;
use crate::train::TrainerOptions;

/// Sets of options to start from.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_preset {
    /// The project's own: models share gradients along roles, rates follow the losses.
    Default = 0,
    /// The published implementation, reproduced to rounding.
    Paper = 1,
    /// Every model by itself: nothing is shared, and rates follow the schedule alone.
    Independent = 2,
}

/// Which parameters belong together.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_share_policy {
    /// None.
    None = 0,
    /// Those of equal class (from the name) and shape, as published.
    Paper = 1,
    /// Those of equal role and view shape, blocks matched by relative depth.
    Aligned = 2,
    /// Groups named in optimizer_json.
    Custom = 3,
}

/// How the gradients of a group mix.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_share_rule {
    /// They do not.
    None = 0,
    /// Each moves towards the group's weighted mean.
    Mean = 1,
    /// Each moves towards the group's weighted sum, as published.
    Sum = 2,
    /// As the mean, each peer as far as its direction agrees.
    Gated = 3,
    /// Conflicting components are projected out, then the mean.
    Project = 4,
    /// An influence matrix in optimizer_json.
    Influence = 5,
}

/// How learning rates follow the models' losses.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_adaptive_lr {
    /// Not at all.
    None = 0,
    /// The published rule; it can only raise a rate.
    Published = 1,
    /// The project's rule.
    Relative = 2,
}

/// What follows the linear warm-up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_schedule {
    /// The base rate.
    Constant = 0,
    /// A straight line to the floor at total_steps.
    Linear = 1,
    /// Half a cosine to the floor at total_steps.
    Cosine = 2,
    /// One named in optimizer_json.
    Custom = 3,
}

/// Where models compute.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_device {
    /// The processor.
    Cpu = 0,
    /// An NVIDIA GPU, with an ONNX Runtime that has the CUDA provider.
    Cuda = 1,
}

/// How models are trained together. mmopt_trainer_options_init fills in a preset.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_trainer_options {
    /// sizeof(mmopt_trainer_options).
    pub struct_size: usize,
    /// The preset that decides what is not a field here, an mmopt_preset; use
    /// mmopt_trainer_options_init to change it, so that the fields follow.
    pub preset: u32,
    /// An mmopt_share_policy; default MMOPT_SHARE_POLICY_ALIGNED.
    pub policy: u32,
    /// An mmopt_share_rule; default MMOPT_SHARE_RULE_GATED.
    pub rule: u32,
    /// An mmopt_adaptive_lr; default MMOPT_ADAPTIVE_LR_RELATIVE.
    pub convergence: u32,
    /// Base learning rate, at least 0; default 3e-5.
    pub learning_rate: f64,
    /// Decay of the first moment, in [0, 1); default 0.9.
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1); default 0.999.
    pub beta2: f64,
    /// Added to the denominator, at least 0; default 1e-8.
    pub eps: f64,
    /// Decoupled weight decay, at least 0; default 0.01.
    pub weight_decay: f64,
    /// Greatest L2 norm of a model's gradient; 0 does not clip; default 1.
    pub max_grad_norm: f64,
    /// Share of the group's gradient in [0, 1]; default 0.2.
    pub share_alpha: f64,
    /// Steps between sharing; 0 never; default 1.
    pub share_every: u64,
    /// Pull towards the group's mean in [0, 1]; default 0.1.
    pub sync_beta: f64,
    /// Steps between synchronisations; 0 never; default 0.
    pub sync_every: u64,
    /// Steps of linear warm-up; default 0.
    pub warmup_steps: u64,
    /// Step at which the schedule reaches its floor; default 0.
    pub total_steps: u64,
    /// Last factor of the schedule in [0, 1]; default 0.
    pub schedule_floor: f64,
    /// An mmopt_schedule; default MMOPT_SCHEDULE_CONSTANT.
    pub schedule: u32,
    /// Micro-batches per step, at least 1; default 1. Their gradients are averaged.
    pub accumulation: u32,
    /// 1 (default): a model with a non-finite loss or gradient skips the step, the others go on;
    /// 0: the step fails before anything changes.
    pub skip_non_finite: u32,
    /// An mmopt_device; default MMOPT_DEVICE_CPU.
    pub device: u32,
    /// The number of the GPU; default 0.
    pub device_id: i32,
    /// 1: a GPU multiplies matrices of f32 in TF32, with 10 of 23 bits of the mantissa: faster, and
    /// gradients that differ by about 1e-3, relative; 0 (default): in f32. The CPU always does.
    pub tf32: u32,
    /// Threads in all; 0 (default) takes every core. Results do not depend on it.
    pub n_threads: usize,
    /// Shapes that each model keeps a session for; 0 (default): 16.
    pub max_sessions: usize,
    /// ONNX Runtime's library; NULL (default) searches as mmopt_runtime_load says.
    pub runtime_path: *const c_char,
    /// A JSON object with further options of the optimizer, over the fields above; NULL (default):
    /// none. docs/optimizer.md lists them; an unknown one is an error.
    pub optimizer_json: *const c_char,
}

impl Default for mmopt_trainer_options {
    fn default() -> Self {
        Self::of(mmopt_preset::Default as u32, &optim::Options::default())
    }
}

// SAFETY: repr(C), begins with its size, numbers and raw pointers only.
unsafe impl crate::ffi::core::structs::Options for mmopt_trainer_options {
    const NAME: &'static str = "mmopt_trainer_options";
}

/// Fills the options with a preset, an mmopt_preset; any other number gives the default one, which
/// the trainer then refuses. NULL is harmless.
///
/// @param[out] options becomes the defaults; may be NULL.
/// @param preset an mmopt_preset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_options_init(
    options: *mut mmopt_trainer_options,
    preset: u32,
) {
    guard_or((), || {
        if !options.is_null() && options.is_aligned() {
            let base = self::preset(preset).unwrap_or_default();
            // SAFETY: the caller's struct, by the header's contract.
            unsafe { options.write(mmopt_trainer_options::of(preset, &base)) };
        }
        Ok(())
    });
}

fn preset(preset: u32) -> Result<optim::Options> {
    let presets: [(u32, fn() -> optim::Options); 3] =
        [(0, optim::Options::default), (1, optim::Options::paper), (2, independent)];
    Ok(choice(preset, "preset", &presets)?())
}

/// Training as the models would have it alone; clipping and decay stay as by default.
fn independent() -> optim::Options {
    optim::Options {
        policy: Policy::None,
        rule: Rule::None,
        share_every: 0,
        convergence: Convergence::None,
        ..optim::Options::default()
    }
}

impl mmopt_trainer_options {
    fn of(preset: u32, o: &optim::Options) -> Self {
        let (schedule, total_steps, schedule_floor) = match o.schedule.decay {
            Decay::Constant => (mmopt_schedule::Constant, 0, 0.0),
            Decay::Linear { total, floor } => (mmopt_schedule::Linear, total, floor),
            Decay::Cosine { total, floor } => (mmopt_schedule::Cosine, total, floor),
            _ => (mmopt_schedule::Custom, 0, 0.0),
        };
        Self {
            struct_size: size_of::<Self>(),
            preset,
            policy: policy(&o.policy) as u32,
            rule: rule(&o.rule) as u32,
            convergence: match o.convergence {
                Convergence::None => 0,
                Convergence::Published { .. } => 1,
                Convergence::Relative { .. } => 2,
            },
            learning_rate: o.learning_rate,
            beta1: o.beta1,
            beta2: o.beta2,
            eps: o.eps,
            weight_decay: o.weight_decay,
            max_grad_norm: if let Clip::Norm(c) = o.clip { c } else { 0.0 },
            share_alpha: o.alpha,
            share_every: o.share_every,
            sync_beta: o.beta,
            sync_every: o.sync_every,
            warmup_steps: o.schedule.warmup,
            total_steps,
            schedule_floor,
            schedule: schedule as u32,
            accumulation: o.accumulation,
            skip_non_finite: u32::from(o.non_finite != NonFinite::Fail),
            device: mmopt_device::Cpu as u32,
            device_id: 0,
            tf32: 0,
            n_threads: 0,
            max_sessions: 0,
            runtime_path: std::ptr::null(),
            optimizer_json: std::ptr::null(),
        }
    }

    /// The checked options.
    ///
    /// # Safety
    /// The texts inside are NULL or what the header says.
    pub(crate) unsafe fn checked(&self) -> Result<TrainerOptions> {
        // SAFETY: by this function's contract.
        let (json, path) = unsafe {
            (
                optional_text(self.optimizer_json, "optimizer_json")?,
                optional_text(self.runtime_path, "runtime_path")?,
            )
        };
        let mut optimizer = merged(&self.fields()?, json)?;
        optimizer.threads = self.n_threads;
        optimizer.validate()?;
        let devices = [(0, Device::Cpu), (1, Device::Cuda { id: self.device_id })];
        Ok(TrainerOptions {
            optimizer,
            threads: self.n_threads,
            device: choice(self.device, "device", &devices)?,
            tf32: flag(self.tf32, "tf32")?,
            max_sessions: self.max_sessions,
            runtime: path.map(PathBuf::from),
        })
    }

    /// The preset with the fields over it.
    pub(crate) fn fields(&self) -> Result<optim::Options> {
        let mut o = preset(self.preset)?;
        self.set_choices(&mut o)?;
        o.learning_rate = self.learning_rate;
        o.beta1 = self.beta1;
        o.beta2 = self.beta2;
        o.eps = self.eps;
        o.weight_decay = self.weight_decay;
        o.alpha = self.share_alpha;
        o.share_every = self.share_every;
        o.beta = self.sync_beta;
        o.sync_every = self.sync_every;
        o.accumulation = self.accumulation;
        o.schedule.warmup = self.warmup_steps;
        let (total, floor) = (self.total_steps, self.schedule_floor);
        if !(0.0..=1.0).contains(&floor) {
            return Err(Error::invalid(format!("schedule_floor is {floor}; it lies in [0, 1]")));
        }
        let decays = [
            (0, Decay::Constant),
            (1, Decay::Linear { total, floor }),
            (2, Decay::Cosine { total, floor }),
            (3, o.schedule.decay),
        ];
        o.schedule.decay = choice(self.schedule, "schedule", &decays)?;
        o.clip = match o.clip {
            Clip::Value(c) if self.max_grad_norm == 0.0 => Clip::Value(c),
            _ if self.max_grad_norm == 0.0 => Clip::None,
            _ => Clip::Norm(self.max_grad_norm),
        };
        match (flag(self.skip_non_finite, "skip_non_finite")?, o.non_finite) {
            (false, _) => o.non_finite = NonFinite::Fail,
            (true, NonFinite::Fail) => o.non_finite = NonFinite::Skip,
            (true, _) => {}
        }
        Ok(o)
    }

    /// Policy, rule and convergence; one that the preset has already keeps the preset's details.
    fn set_choices(&self, o: &mut optim::Options) -> Result<()> {
        if self.policy != policy(&o.policy) as u32 {
            let policies = [0, 1, 2, 3].map(|n| (n, n));
            o.policy = match choice(self.policy, "policy", &policies)? {
                0 => Policy::None,
                1 => Policy::Paper,
                2 => Policy::Aligned,
                _ => Policy::Custom(Vec::new()),
            };
        }
        if self.rule != rule(&o.rule) as u32 {
            let rules = [0, 1, 2, 3, 4, 5].map(|n| (n, n));
            o.rule = match choice(self.rule, "rule", &rules)? {
                0 => Rule::None,
                1 => Rule::Mean,
                2 => Rule::Sum,
                3 => Rule::Gated,
                4 => Rule::Project,
                _ => Rule::Influence(Vec::new()),
            };
        }
        let of = |o: &optim::Options| o.convergence;
        let published = of(&optim::Options::paper());
        let relative = of(&optim::Options::default());
        let ways = [(0, Convergence::None), (1, published), (2, relative)];
        o.convergence = choice(self.convergence, "convergence", &ways)?;
        Ok(())
    }
}

fn policy(policy: &Policy) -> mmopt_share_policy {
    match policy {
        Policy::None => mmopt_share_policy::None,
        Policy::Paper => mmopt_share_policy::Paper,
        Policy::Aligned => mmopt_share_policy::Aligned,
        Policy::Custom(_) => mmopt_share_policy::Custom,
    }
}

fn rule(rule: &Rule) -> mmopt_share_rule {
    match rule {
        Rule::None => mmopt_share_rule::None,
        Rule::Mean => mmopt_share_rule::Mean,
        Rule::Sum => mmopt_share_rule::Sum,
        Rule::Gated => mmopt_share_rule::Gated,
        Rule::Project => mmopt_share_rule::Project,
        Rule::Influence(_) => mmopt_share_rule::Influence,
    }
}

/// Options with the entries of a JSON object over them; an unknown name is an error.
pub(crate) fn merged(base: &optim::Options, json: Option<&str>) -> Result<optim::Options> {
    let Some(json) = json else { return Ok(base.clone()) };
    let wrong =
        |e: serde_json::Error| Error::invalid(format!("optimizer_json: {e}")).with_source(e);
    let over: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).map_err(wrong)?;
    let mut all = serde_json::to_value(base).map_err(wrong)?;
    for (name, value) in over {
        match all.get_mut(&name) {
            Some(slot) => *slot = value,
            None => return Err(Error::invalid(format!("optimizer_json: no option '{name}'"))),
        }
    }
    serde_json::from_value(all).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_pass_through_the_struct_unchanged() {
        for (number, expected) in
            [(0, optim::Options::default()), (1, optim::Options::paper()), (2, independent())]
        {
            let options = mmopt_trainer_options::of(number, &preset(number).unwrap());
            assert_eq!(options.fields().unwrap(), expected, "preset {number}");
        }
    }

    #[test]
    fn json_reaches_every_option_and_refuses_unknown_ones() {
        let base = optim::Options::default();
        let got = merged(&base, Some(r#"{"amsgrad": true, "clip": {"value": 0.5}}"#)).unwrap();
        assert!(got.amsgrad && got.clip == Clip::Value(0.5));
        let e = merged(&base, Some(r#"{"amsgard": true}"#)).unwrap_err();
        assert_eq!(e.message(), "optimizer_json: no option 'amsgard'");
        assert!(merged(&base, Some("[1]")).is_err());
    }
}

//! Options of a trainer: the common ones as fields, all others as JSON.

use std::ffi::c_char;
use std::path::PathBuf;

use crate::error::{Context, Result};
use crate::ffi::core::args::{choice, flag, optional_text};
use crate::ffi::core::guard::guard_or;
use crate::optim::{self, AdaptiveLr, LrSchedule, NonFinite, SharePolicy, ShareRule};
use crate::runtime::Device;
use crate::train::TrainerOptions;

/// Sets of options to start from.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_preset {
    /// The project's own: models learn from each other's predictions, fresh ones start from the
    /// pretrained one's token table where there is one, and rates follow the losses.
    Default = 0,
    /// The published implementation (Gomez 2025, see docs/optimizer.md), reproduced to rounding.
    Paper = 1,
    /// Every model by itself: nothing is shared, and rates follow the schedule alone.
    Independent = 2,
    /// PyTorch's AdamW with its defaults for every model by itself: learning rate 1e-3, weight
    /// decay on every parameter, no clipping, nothing shared. Beyond it, non_finite skips.
    Adamw = 3,
}

/// Which parameters share.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_share_policy {
    /// None.
    None = 0,
    /// Those of equal class (from the name) and shape, as published.
    Paper = 1,
    /// Those of equal role and view shape, blocks matched by relative depth.
    Aligned = 2,
    /// The groups in share_groups, a key of options_json.
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
    /// The matrix in share_influence, a key of options_json.
    Influence = 5,
}

/// How learning rates follow the models' losses. adaptive_lr_every and adaptive_lr_window, keys of
/// options_json, say how often and how far back; another preset has other values of them.
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
pub enum mmopt_lr_schedule {
    /// The base rate.
    Constant = 0,
    /// A straight line from 1 in the first step after warm-up to min_lr_ratio, reached after
    /// total_steps: 1, 0.75, 0.5, 0.25 for four steps.
    Linear = 1,
    /// Half a cosine over the same steps.
    Cosine = 2,
    /// A power of the steps left, over the same steps; polynomial_power in options_json.
    Polynomial = 3,
    /// A cosine up and one down, until total_steps, without warm-up; one_cycle in options_json.
    OneCycle = 4,
    /// Lowered when the scores of mmopt_trainer_report_validation stop to improve; plateau in
    /// options_json.
    Plateau = 5,
    /// The published scheduler; it counts micro-batches.
    Published = 6,
}

/// What happens to a model whose loss or gradient is NaN or infinite, or so large that a moment
/// would overflow.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_non_finite {
    /// It skips the step, which is counted; the others go on.
    Skip = 0,
    /// The step fails before anything changes.
    Fail = 1,
    /// Nobody looks.
    Ignore = 2,
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
    pub share_policy: u32,
    /// An mmopt_share_rule; default MMOPT_SHARE_RULE_NONE.
    pub share_rule: u32,
    /// An mmopt_adaptive_lr; default MMOPT_ADAPTIVE_LR_RELATIVE.
    pub adaptive_lr: u32,
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
    /// Greatest L2 norm of a model's gradient, at least 0; 0 does not clip; default 1.
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
    /// Steps of lr_schedule, warm-up included; at least 1 where it has an end, and at least
    /// warmup_steps for a linear, cosine or polynomial one; default 0.
    pub total_steps: u64,
    /// Smallest factor of lr_schedule, in [0, 1]; default 0.
    pub min_lr_ratio: f64,
    /// An mmopt_lr_schedule; default MMOPT_LR_SCHEDULE_CONSTANT.
    pub lr_schedule: u32,
    /// Micro-batches per step, at least 1; default 1. Their gradients are averaged, each by the
    /// number of its labels that count, or as gradient_accumulation in options_json says.
    pub gradient_accumulation_steps: u32,
    /// An mmopt_non_finite; default MMOPT_NON_FINITE_SKIP.
    pub non_finite: u32,
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
    /// A JSON object with any options of the optimizer, merged over the fields above; NULL
    /// (default): none. docs/options.md lists them; an unknown one is an error.
    pub options_json: *const c_char,
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
/// @param[out] options filled with the defaults; may be NULL.
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
    let presets: [(u32, fn() -> optim::Options); 4] = [
        (0, optim::Options::default),
        (1, optim::Options::paper),
        (2, optim::Options::independent),
        (3, optim::Options::adamw),
    ];
    Ok(choice(preset, "preset", &presets)?())
}

/// The numbers of an option in C and its values in Rust.
type Values<T> = [(u32, T)];

const POLICIES: &Values<SharePolicy> = &[
    (mmopt_share_policy::None as u32, SharePolicy::None),
    (mmopt_share_policy::Paper as u32, SharePolicy::Paper),
    (mmopt_share_policy::Aligned as u32, SharePolicy::Aligned),
    (mmopt_share_policy::Custom as u32, SharePolicy::Custom),
];
const RULES: &Values<ShareRule> = &[
    (mmopt_share_rule::None as u32, ShareRule::None),
    (mmopt_share_rule::Mean as u32, ShareRule::Mean),
    (mmopt_share_rule::Sum as u32, ShareRule::Sum),
    (mmopt_share_rule::Gated as u32, ShareRule::Gated),
    (mmopt_share_rule::Project as u32, ShareRule::Project),
    (mmopt_share_rule::Influence as u32, ShareRule::Influence),
];
const ADAPTIVE_LRS: &Values<AdaptiveLr> = &[
    (mmopt_adaptive_lr::None as u32, AdaptiveLr::None),
    (mmopt_adaptive_lr::Published as u32, AdaptiveLr::Published),
    (mmopt_adaptive_lr::Relative as u32, AdaptiveLr::Relative),
];
const LR_SCHEDULES: &Values<LrSchedule> = &[
    (mmopt_lr_schedule::Constant as u32, LrSchedule::Constant),
    (mmopt_lr_schedule::Linear as u32, LrSchedule::Linear),
    (mmopt_lr_schedule::Cosine as u32, LrSchedule::Cosine),
    (mmopt_lr_schedule::Polynomial as u32, LrSchedule::Polynomial),
    (mmopt_lr_schedule::OneCycle as u32, LrSchedule::OneCycle),
    (mmopt_lr_schedule::Plateau as u32, LrSchedule::Plateau),
    (mmopt_lr_schedule::Published as u32, LrSchedule::Published),
];
const NON_FINITES: &Values<NonFinite> = &[
    (mmopt_non_finite::Skip as u32, NonFinite::Skip),
    (mmopt_non_finite::Fail as u32, NonFinite::Fail),
    (mmopt_non_finite::Ignore as u32, NonFinite::Ignore),
];

fn number<T: PartialEq>(values: &Values<T>, value: &T) -> u32 {
    values.iter().find(|(_, v)| v == value).map_or(u32::MAX, |(n, _)| *n)
}

impl mmopt_trainer_options {
    fn of(preset: u32, o: &optim::Options) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            preset,
            share_policy: number(POLICIES, &o.share_policy),
            share_rule: number(RULES, &o.share_rule),
            adaptive_lr: number(ADAPTIVE_LRS, &o.adaptive_lr),
            learning_rate: o.learning_rate,
            beta1: o.beta1,
            beta2: o.beta2,
            eps: o.eps,
            weight_decay: o.weight_decay,
            max_grad_norm: o.max_grad_norm,
            share_alpha: o.share_alpha,
            share_every: o.share_every,
            sync_beta: o.sync_beta,
            sync_every: o.sync_every,
            warmup_steps: o.warmup_steps,
            total_steps: o.total_steps,
            min_lr_ratio: o.min_lr_ratio,
            lr_schedule: number(LR_SCHEDULES, &o.lr_schedule),
            gradient_accumulation_steps: o.gradient_accumulation_steps,
            non_finite: number(NON_FINITES, &o.non_finite),
            device: mmopt_device::Cpu as u32,
            device_id: 0,
            tf32: 0,
            n_threads: o.n_threads,
            max_sessions: 0,
            runtime_path: std::ptr::null(),
            options_json: std::ptr::null(),
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
                optional_text(self.options_json, "options_json")?,
                optional_text(self.runtime_path, "runtime_path")?,
            )
        };
        let fields = self.fields()?;
        let optimizer = match json {
            Some(json) => {
                // The struct's own mistakes are not the text's.
                fields.check_fields()?;
                fields.with_json(json).context(|| "options_json")?
            }
            None => fields,
        };
        optimizer.validate()?;
        let devices = [(0, Device::Cpu), (1, Device::Cuda { id: self.device_id })];
        Ok(TrainerOptions {
            optimizer,
            device: choice(self.device, "device", &devices)?,
            tf32: flag(self.tf32, "tf32")?,
            max_sessions: self.max_sessions,
            runtime: path.map(PathBuf::from),
        })
    }

    /// The preset with the fields over it.
    fn fields(&self) -> Result<optim::Options> {
        Ok(optim::Options {
            share_policy: choice(self.share_policy, "share_policy", POLICIES)?,
            share_rule: choice(self.share_rule, "share_rule", RULES)?,
            adaptive_lr: choice(self.adaptive_lr, "adaptive_lr", ADAPTIVE_LRS)?,
            learning_rate: self.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            share_alpha: self.share_alpha,
            share_every: self.share_every,
            sync_beta: self.sync_beta,
            sync_every: self.sync_every,
            warmup_steps: self.warmup_steps,
            total_steps: self.total_steps,
            min_lr_ratio: self.min_lr_ratio,
            lr_schedule: choice(self.lr_schedule, "lr_schedule", LR_SCHEDULES)?,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            non_finite: choice(self.non_finite, "non_finite", NON_FINITES)?,
            n_threads: self.n_threads,
            ..preset(self.preset)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_pass_through_the_struct_unchanged() {
        for number in 0..4 {
            let expected = preset(number).unwrap();
            let options = mmopt_trainer_options::of(number, &expected);
            assert_eq!(options.fields().unwrap(), expected, "preset {number}");
        }
    }

    #[test]
    fn json_is_merged_over_the_fields() {
        let json = c"{\"amsgrad\": true, \"n_threads\": 3, \"plateau\": {\"patience\": 2}}";
        let mut options = mmopt_trainer_options { n_threads: 2, ..Default::default() };
        options.eps = 1e-6;
        options.options_json = json.as_ptr();
        // SAFETY: the text outlives the call.
        let got = unsafe { options.checked() }.unwrap().optimizer;
        let mut expected = optim::Options { amsgrad: true, eps: 1e-6, ..Default::default() };
        (expected.n_threads, expected.plateau.patience) = (3, 2);
        assert_eq!(got, expected);
    }
}

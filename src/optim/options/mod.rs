//! Every hyper-parameter of the coordinated optimizer, with two presets.
//!
//! [`Options::default`] is the project's own preset; [`Options::paper`] reproduces the published
//! implementation to rounding. The formulas stand in docs/optimizer.md under the same names.

mod validate;

use serde::{Deserialize, Serialize};

/// The update rule of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// AdamW with decoupled weight decay; `eps` added to √v̂ (Loshchilov and Hutter 2019).
    AdamW,
    /// Stochastic gradient descent with momentum, weight decay added to the gradient.
    Sgd,
    /// Lion (Chen et al. 2023): sign of an interpolated momentum, decoupled weight decay.
    Lion,
    /// Muon (Jordan et al. 2024): orthogonalised momentum for matrices inside blocks, AdamW
    /// for embeddings, heads, vectors and scalars.
    Muon,
}

/// Where `eps` enters AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsForm {
    /// Added to √(v / (1 − β₂ᵗ)): the field's form.
    Corrected,
    /// Added to √v, before the bias correction: the published implementation's form.
    Raw,
}

/// What bounds the gradients before they are shared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Nothing.
    None,
    /// g ← g · min(1, c / (‖g‖₂ + 1e-6)), the norm over all trainable parameters of one model.
    Norm(f64),
    /// Every element clamped to [−c, c].
    Value(f64),
}

/// How micro-batches combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulate {
    /// The mean over the micro-batches that came in (a short last window is divided by its own
    /// length).
    Mean,
    /// The plain sum.
    Sum,
}

/// Who shares with whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// Nobody.
    None,
    /// Class from the parameter's name and exact shape; members of one model mix too.
    Paper,
    /// Same role, same view shape, blocks matched by relative depth, one view per model.
    Aligned,
    /// Groups that the host names.
    Custom(Vec<CustomGroup>),
}

/// A group of views that the host names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomGroup {
    /// Name in the plan.
    pub name: String,
    /// At least two views of equal logical shape; views must not overlap.
    pub members: Vec<CustomMember>,
}

/// One view in a [`CustomGroup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomMember {
    /// The model's name.
    pub model: String,
    /// The parameter's name.
    pub param: String,
    /// `[axis, start, length]` of a slice of the parameter seen as a matrix (first dimension
    /// against the rest); `None` is the whole.
    #[serde(default)]
    pub slice: Option<[usize; 3]>,
    /// Whether the view is the transpose.
    #[serde(default)]
    pub transpose: bool,
}

/// How the gradients of a group mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// No mixing (groups may still be synchronised).
    None,
    /// gᵢ ← (1−α) gᵢ + α Σ ŵⱼ gⱼ / Σ ŵⱼ.
    Mean,
    /// gᵢ ← (1−α) gᵢ + α Σ ŵⱼ gⱼ: the published form, not divided.
    Sum,
    /// As `Mean`, each peer weighted by max(0, cos(gᵢ, gⱼ)) and brought to gᵢ's length.
    Gated,
    /// Components that conflict with a peer are projected out (Yu et al. 2020), then `Mean`.
    Project,
    /// gᵢ ← (1 − Σⱼ Aᵢⱼ) gᵢ + Σⱼ Aᵢⱼ gⱼ with an influence matrix, by model name.
    Influence(Vec<Influence>),
}

/// One entry of an influence matrix: how much `from`'s gradients move `to`'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// The model that is influenced.
    pub to: String,
    /// The model that influences.
    pub from: String,
    /// In [0, 1]; the entries of one `to` sum to at most 1.
    pub amount: f64,
}

/// The shape of the learning rate after warm-up, as a factor of the base rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decay {
    /// 1.
    Constant,
    /// From 1 to `floor` in a straight line until step `total`, then `floor`.
    Linear {
        /// Step at which the floor is reached.
        total: u64,
        /// Last factor, in [0, 1].
        floor: f64,
    },
    /// floor + (1 − floor) · (1 + cos πx) / 2, x the finished share of the steps after warm-up.
    Cosine {
        /// Step at which the floor is reached.
        total: u64,
        /// Last factor, in [0, 1].
        floor: f64,
    },
    /// floor + (1 − floor) · (1 − x)^power.
    Polynomial {
        /// Step at which the floor is reached.
        total: u64,
        /// Last factor, in [0, 1].
        floor: f64,
        /// Exponent, > 0.
        power: f64,
    },
    /// Cosine from 1/`start_div` up to 1 at `peak`·total, then cosine down to
    /// 1/(`start_div`·`final_div`) (Smith and Topin 2018). Warm-up steps are ignored.
    OneCycle {
        /// Length of the cycle in steps.
        total: u64,
        /// Where the peak lies, in (0, 1).
        peak: f64,
        /// The first factor is 1/`start_div`.
        start_div: f64,
        /// The last factor is the first divided by this.
        final_div: f64,
    },
    /// Multiplied by `factor` after `patience` validations without an improvement by `threshold`
    /// (relative); fed through `report_validation`.
    Plateau {
        /// In (0, 1).
        factor: f64,
        /// Validations to wait.
        patience: u32,
        /// Relative improvement that counts.
        threshold: f64,
        /// Smallest factor.
        floor: f64,
    },
    /// The published scheduler: max(floor, (1 + cos πx) / 2), counted in micro-batches from 0,
    /// rising again past `total`.
    Published {
        /// Micro-batches to the first minimum.
        total: u64,
        /// Floor, in [0, 1].
        floor: f64,
    },
}

/// Warm-up and decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// Steps of linear warm-up; step t ≤ warm-up has the factor t / warmup.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { warmup: 0, decay: Decay::Constant }
    }
}

/// The published optimizer's own multiplier, beside its scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Multiplier {
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Cosine with a period of 20000 · accumulation steps, at least 0.1.
    pub cosine: bool,
}

/// How a model's learning rate follows its own losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convergence {
    /// Not at all.
    None,
    /// The published rule: unsigned slope, can only raise a rate.
    Published {
        /// Losses between updates, > 0.
        every: u64,
        /// Losses looked at, ≥ 2.
        window: usize,
    },
    /// The project's rule: signed, scale-free slope against its noise and the peers.
    Relative {
        /// Losses between updates, > 0.
        every: u64,
        /// Losses looked at, ≥ 4.
        window: usize,
    },
}

/// How a model's weight scales its learning rate; ŵ are the normalised weights of n models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateScale {
    /// 1.
    None,
    /// 0.5 + 0.5 ŵ.
    Published,
    /// 0.5 + 0.5 n ŵ: 1 for equal weights.
    Relative,
}

/// Whether model weights move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// They stay as given.
    Fixed,
    /// They follow validation scores: better models teach more.
    Validation {
        /// Score difference that changes a weight by the factor e, > 0.
        temperature: f64,
        /// Largest factor up or down, ≥ 1.
        limit: f64,
    },
}

/// What happens to a model whose loss or gradient is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Its step is skipped and counted; the others go on.
    Skip,
    /// `step` fails before anything changes.
    Fail,
    /// Nobody looks (saves one read of the gradients).
    Ignore,
}

/// Element type of the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentType {
    /// 32-bit floats.
    F32,
    /// bfloat16, rounded stochastically from a hash of step and position.
    BF16,
}

/// Overrides for the parameters whose name matches a pattern. Later groups win.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParamGroup {
    /// Pattern on the parameter's name: `*` any text, `?` one character.
    pub pattern: String,
    /// Pattern on the model's name.
    pub model: String,
    /// Factor on the learning rate.
    pub lr_scale: Option<f64>,
    /// Weight decay instead of the global one.
    pub weight_decay: Option<f64>,
    /// `Some(false)` freezes, `Some(true)` trains.
    pub trainable: Option<bool>,
}

impl Default for ParamGroup {
    fn default() -> Self {
        Self {
            pattern: "*".into(),
            model: "*".into(),
            lr_scale: None,
            weight_decay: None,
            trainable: None,
        }
    }
}

/// Learning from the peers' predictions; carried out by whoever runs the models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mutual {
    /// Weight of KL(peers ‖ own), ≥ 0.
    pub lambda: f64,
    /// Softmax temperature, > 0.
    pub temperature: f64,
}

/// The build of the kernels; every build gives the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isa {
    /// The widest that the processor has.
    #[default]
    Auto,
    /// The target's baseline (SSE2 on x86-64, NEON on aarch64).
    Portable,
    /// 256-bit AVX2.
    Avx2,
    /// 512-bit AVX-512.
    Avx512,
}

/// All options. See the fields for units and defaults (those of [`Options::default`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Update rule; AdamW.
    pub method: Method,
    /// Base learning rate, ≥ 0; 3e-5.
    pub learning_rate: f64,
    /// Decay of the first moment, in [0, 1); 0.9.
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1); 0.999. Lion's second coefficient.
    pub beta2: f64,
    /// Added to the denominator, ≥ 0; 1e-8.
    pub eps: f64,
    /// Where `eps` enters; corrected.
    pub eps_form: EpsForm,
    /// Keep the maximum of the second moment (Reddi et al. 2018); false.
    pub amsgrad: bool,
    /// Weight decay, ≥ 0; 0.01.
    pub weight_decay: f64,
    /// No weight decay for biases, norms and other vectors; true.
    pub decay_matrices_only: bool,
    /// Momentum of SGD and Muon, in [0, 1); 0.9.
    pub momentum: f64,
    /// Nesterov's form for SGD and Muon; false.
    pub nesterov: bool,
    /// Factor on the learning rate of Muon's matrices; 1.
    pub muon_scale: f64,
    /// Overrides by pattern; none.
    pub groups: Vec<ParamGroup>,
    /// Warm-up and decay; constant.
    pub schedule: Schedule,
    /// The published second multiplier; none.
    pub multiplier: Option<Multiplier>,
    /// Rates from losses; the project's rule every 10 of the last 50 losses.
    pub convergence: Convergence,
    /// Rates from weights; relative.
    pub rate_scale: RateScale,
    /// Model weights; fixed.
    pub weighting: Weighting,
    /// Clipping; norm 1.
    pub clip: Clip,
    /// Micro-batches per step, ≥ 1; 1.
    pub accumulation: u32,
    /// How they combine; mean.
    pub accumulate: Accumulate,
    /// Who shares; aligned.
    pub policy: Policy,
    /// How gradients mix; gated.
    pub rule: Rule,
    /// α, the share of the group's gradient, in [0, 1]; 0.2.
    pub alpha: f64,
    /// Steps between sharing; 0 never; 1.
    pub share_every: u64,
    /// β, the pull towards the group's mean, in [0, 1]; 0.1.
    pub beta: f64,
    /// Steps between synchronisations; 0 never; 0.
    pub sync_every: u64,
    /// Largest relative rise of the loss that a synchronisation may cause on the current batch;
    /// `None` does not look. Carried out by whoever runs the models, through `propose_sync`.
    pub barrier: Option<f64>,
    /// Learning from peers' predictions; none. Carried out by whoever runs the models.
    pub mutual: Option<Mutual>,
    /// NaN and infinity; skip.
    pub non_finite: NonFinite,
    /// Element type of the moments; f32.
    pub moments: MomentType,
    /// Steps between gradient-flow and distance metrics; 0 never; 0.
    pub metrics_every: u64,
    /// Threads of the step; 0 is one per core; 0. The result does not depend on it.
    pub threads: usize,
    /// Kernel build; auto. The result does not depend on it.
    pub isa: Isa,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::AdamW,
            learning_rate: 3e-5,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_form: EpsForm::Corrected,
            amsgrad: false,
            weight_decay: 0.01,
            decay_matrices_only: true,
            momentum: 0.9,
            nesterov: false,
            muon_scale: 1.0,
            groups: Vec::new(),
            schedule: Schedule::default(),
            multiplier: None,
            convergence: Convergence::Relative { every: 10, window: 50 },
            rate_scale: RateScale::Relative,
            weighting: Weighting::Fixed,
            clip: Clip::Norm(1.0),
            accumulation: 1,
            accumulate: Accumulate::Mean,
            policy: Policy::Aligned,
            rule: Rule::Gated,
            alpha: 0.2,
            share_every: 1,
            beta: 0.1,
            sync_every: 0,
            barrier: None,
            mutual: None,
            non_finite: NonFinite::Skip,
            moments: MomentType::F32,
            metrics_every: 0,
            threads: 0,
            isa: Isa::Auto,
        }
    }
}

impl Options {
    /// The published implementation: its classes, its un-divided sums, its `eps`, its multiplier
    /// (no warm-up, no cosine until set), sharing every step, synchronisation every 10 steps.
    pub fn paper() -> Self {
        Self {
            eps_form: EpsForm::Raw,
            decay_matrices_only: false,
            multiplier: Some(Multiplier { warmup: 0, cosine: false }),
            convergence: Convergence::Published { every: 100, window: 100 },
            rate_scale: RateScale::Published,
            clip: Clip::None,
            accumulate: Accumulate::Sum,
            policy: Policy::Paper,
            rule: Rule::Sum,
            sync_every: 10,
            non_finite: NonFinite::Ignore,
            ..Self::default()
        }
    }

    /// The field's AdamW and nothing else: no sharing, no synchronisation, no rates from losses,
    /// no clipping, weight decay on every parameter.
    pub fn plain() -> Self {
        Self {
            policy: Policy::None,
            rule: Rule::None,
            share_every: 0,
            convergence: Convergence::None,
            clip: Clip::None,
            decay_matrices_only: false,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        for options in [Options::default(), Options::paper(), Options::plain()] {
            options.validate().unwrap();
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
        }
    }
}

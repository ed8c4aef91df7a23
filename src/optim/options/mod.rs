//! Every hyper-parameter of the coordinated optimizer, with two presets.
//!
//! [`Options::default`] is the project's own preset; [`Options::paper`] reproduces the published
//! implementation to rounding. The formulas stand in docs/optimizer.md under the same names. A
//! field and its JSON key are one: the schema made from these types (`schema`) is what JSON
//! and structs are checked against, and what docs/options.md and docs/options.schema.json say.

mod attention;
mod mutual;
pub(super) mod page;
mod precision;
pub(super) mod schema;
mod start;
mod validate;

pub use attention::AttentionForm;
pub use mutual::{Mutual, Teacher, TeacherWeights};
pub use precision::Precision;
pub use start::{Start, TokenEmbeddings};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The update rule of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// AdamW with decoupled weight decay (Loshchilov and Hutter 2019).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpsPlacement {
    /// Added to √(v / (1 − β₂ᵗ)): PyTorch's form.
    AfterBiasCorrection,
    /// Added to √v: the published implementation's form.
    BeforeBiasCorrection,
}

/// How micro-batches combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GradientAccumulation {
    /// The mean over the micro-batches that came in, each by its weight: Σ w·g / Σ w. In a trainer
    /// the weight is what the loss divides by (the labels that count, or their class weights), so
    /// the step is that of one large batch. In gradient mode the host gives it; 1 otherwise.
    WeightedMean,
    /// The mean over the micro-batches that came in, each alike: the mean of means.
    Mean,
    /// The plain sum.
    Sum,
}

/// Who shares with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SharePolicy {
    /// Nobody.
    None,
    /// Class from the parameter's name and exact shape; members of one model mix too.
    Paper,
    /// Same role, same view shape, blocks matched by relative depth, one view per model.
    Aligned,
    /// The groups in `share_groups`.
    Custom,
}

/// A group of views that the host names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareGroup {
    /// Name in the plan.
    #[schemars(example = &"queries")]
    pub name: String,
    /// At least two views of equal logical shape; views must not overlap.
    #[schemars(length(min = 2))]
    #[schemars(example = vec![
        ShareMember::whole("bert", "bert.encoder.layer.0.attention.self.query.weight"),
        ShareMember::whole("gpt2", "query.weight"),
    ])]
    pub members: Vec<ShareMember>,
}

/// One view in a [`ShareGroup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareMember {
    /// The model's name.
    #[schemars(example = &"gpt2")]
    pub model: String,
    /// The parameter's name.
    #[schemars(example = &"h.0.attn.c_attn.weight")]
    pub param: String,
    /// `[axis, start, length]` of a slice of the parameter seen as a matrix (first dimension
    /// against the rest); null is the whole.
    #[serde(default)]
    #[schemars(example = vec![1, 0, 768])]
    pub slice: Option<[usize; 3]>,
    /// Whether the view is the transpose.
    #[serde(default)]
    #[schemars(example = true)]
    pub transpose: bool,
}

impl ShareMember {
    /// The whole of a parameter.
    pub fn whole(model: &str, param: &str) -> Self {
        Self { model: model.into(), param: param.into(), slice: None, transpose: false }
    }
}

/// How the gradients of a group mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShareRule {
    /// They do not (groups may still be synchronised).
    None,
    /// gᵢ ← (1−α) gᵢ + α Σ ŵⱼ gⱼ / Σ ŵⱼ.
    Mean,
    /// gᵢ ← (1−α) gᵢ + α Σ ŵⱼ gⱼ: the published form, not divided.
    Sum,
    /// As mean, each peer weighted by max(0, cos(gᵢ, gⱼ)) and brought to gᵢ's length.
    Gated,
    /// Components that conflict with a peer are projected out (Yu et al. 2020), then mean.
    Project,
    /// gᵢ ← (1 − Σⱼ Aᵢⱼ) gᵢ + Σⱼ Aᵢⱼ gⱼ with the matrix in `share_influence`.
    Influence,
}

/// One entry of an influence matrix: how much one model's gradients move another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Influence {
    /// The model that is influenced.
    #[schemars(example = &"gpt2")]
    pub to: String,
    /// The model that influences.
    #[schemars(example = &"bert")]
    pub from: String,
    /// How much; the entries of one `to` sum to at most 1.
    #[schemars(range(min = 0, max = 1), example = 0.3)]
    pub amount: f64,
}

/// The learning rate after warm-up, as a factor of the base rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LrSchedule {
    /// 1.
    Constant,
    /// A straight line from 1 in the first step after warm-up to `min_lr_ratio`, which it reaches
    /// after `total_steps`: 1, 0.75, 0.5, 0.25 for four steps.
    Linear,
    /// Half a cosine over the same steps.
    Cosine,
    /// `min_lr_ratio` + (1 − `min_lr_ratio`) · (1 − x)^`polynomial_power`, x the share of the steps
    /// from warm-up to `total_steps` that were done before this one.
    Polynomial,
    /// A cosine up to 1 and one down again (Smith and Topin 2018), see `one_cycle`; warm-up steps
    /// are ignored.
    OneCycle,
    /// Lowered when reported validation scores stop to improve, see `plateau`; never below
    /// `min_lr_ratio`.
    Plateau,
    /// The published scheduler: max(`min_lr_ratio`, (1 + cos πx) / 2), counted in micro-batches
    /// from 0, rising again past `total_steps`.
    Published,
}

/// The numbers of the one-cycle schedule; PyTorch's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// Where the peak lies, as a share of `total_steps`.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1), example = 0.25)]
    pub pct_start: f64,
    /// The first factor is 1/`div_factor`.
    #[schemars(range(min = 1), example = 10)]
    pub div_factor: f64,
    /// The last factor is the first divided by this.
    #[schemars(range(min = 1), example = 100)]
    pub final_div_factor: f64,
}

impl Default for OneCycle {
    fn default() -> Self {
        Self { pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }
    }
}

/// The numbers of the plateau schedule; PyTorch's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Plateau {
    /// The rate is multiplied by this.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1), example = 0.5)]
    pub factor: f64,
    /// Reports without improvement that are waited for.
    #[schemars(range(min = 0, max = 4294967295u32), example = 2)]
    pub patience: u32,
    /// Relative improvement that counts.
    #[schemars(range(min = 0), example = 0.01)]
    pub threshold: f64,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { factor: 0.1, patience: 10, threshold: 1e-4 }
    }
}

/// The published optimizer's own factor on the rate, beside its scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PublishedMultiplier {
    /// Steps of linear warm-up.
    #[schemars(example = 100)]
    pub warmup_steps: u64,
    /// Cosine with a period of 20000 · accumulation steps, at least 0.1.
    #[schemars(example = true)]
    pub cosine: bool,
}

/// How a model's learning rate follows its own losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdaptiveLr {
    /// Not at all.
    None,
    /// The published rule: unsigned slope, can only raise a rate. It was published with
    /// `adaptive_lr_every` and `adaptive_lr_window` 100.
    Published,
    /// The project's rule: signed, scale-free slope against its noise and the peers.
    Relative,
}

/// How a model's weight scales its learning rate; ŵ are the normalised weights of n models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelWeightLrScale {
    /// 1.
    None,
    /// 0.5 + 0.5 ŵ.
    Published,
    /// 0.5 + 0.5 n ŵ: 1 for equal weights.
    Relative,
}

/// Whether model weights move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// They stay as given.
    Fixed,
    /// They follow reported validation scores: better models teach more.
    Validation,
}

/// What happens to a model whose loss or gradient is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Its step is skipped and counted; the others go on.
    Skip,
    /// The step fails before anything changes.
    Fail,
    /// Nobody looks (saves one read of the gradients).
    Ignore,
}

/// Element type of the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MomentDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16, rounded stochastically from a hash of step and position.
    BF16,
}

/// Overrides for the parameters whose name matches a pattern. Later groups win.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParamGroup {
    /// Pattern on the parameter's name: `*` any text, `?` one character.
    #[schemars(example = &"*bias")]
    pub pattern: String,
    /// Pattern on the model's name.
    #[schemars(example = &"bert")]
    pub model: String,
    /// Factor on the learning rate; null leaves it.
    #[schemars(range(min = 0), example = 0.1)]
    pub lr_scale: Option<f64>,
    /// Weight decay instead of the global one; null leaves it.
    #[schemars(range(min = 0), example = 0)]
    pub weight_decay: Option<f64>,
    /// false freezes, true trains, null leaves it.
    #[schemars(example = false)]
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

/// The build of the kernels; every build gives the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstructionSet {
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

/// All options. docs/options.md lists types, ranges and the presets' values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Update rule.
    #[schemars(example = Method::Lion)]
    pub method: Method,
    /// Base learning rate.
    #[schemars(range(min = 0), example = 5e-5)]
    pub learning_rate: f64,
    /// Decay of the first moment.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1), example = 0.95)]
    pub beta1: f64,
    /// Decay of the second moment. Lion's second coefficient.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1), example = 0.98)]
    pub beta2: f64,
    /// Added to the denominator.
    #[schemars(range(min = 0), example = 1e-6)]
    pub eps: f64,
    /// Where `eps` enters.
    #[schemars(example = EpsPlacement::BeforeBiasCorrection)]
    pub eps_placement: EpsPlacement,
    /// Keep the maximum of the second moment (Reddi et al. 2018).
    #[schemars(example = true)]
    pub amsgrad: bool,
    /// Weight decay.
    #[schemars(range(min = 0), example = 0.1)]
    pub weight_decay: f64,
    /// No weight decay for biases, norms and other vectors.
    #[schemars(example = false)]
    pub decay_matrices_only: bool,
    /// Momentum of SGD and Muon.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1), example = 0.95)]
    pub momentum: f64,
    /// Nesterov's form for SGD and Muon.
    #[schemars(example = true)]
    pub nesterov: bool,
    /// Factor on the learning rate of Muon's matrices.
    #[schemars(extend("exclusiveMinimum" = 0), example = 0.5)]
    pub muon_scale: f64,
    /// Overrides by name pattern.
    #[schemars(example = vec![ParamGroup {
        pattern: "*bias".into(), weight_decay: Some(0.0), ..ParamGroup::default()
    }])]
    pub param_groups: Vec<ParamGroup>,
    /// What follows the warm-up.
    #[schemars(example = LrSchedule::Cosine)]
    pub lr_schedule: LrSchedule,
    /// Steps of linear warm-up; step t ≤ warm-up has the factor t / `warmup_steps`.
    #[schemars(example = 100)]
    pub warmup_steps: u64,
    /// Steps of the schedule, warm-up included; later ones have its last factor. `lr_schedule`
    /// published counts micro-batches. At least 1 where the schedule has an end: linear, cosine,
    /// polynomial, one_cycle, published; and at least `warmup_steps` for the first three.
    #[schemars(example = 10000)]
    pub total_steps: u64,
    /// Smallest factor of the linear, cosine, polynomial, plateau and published schedules.
    #[schemars(range(min = 0, max = 1), example = 0.1)]
    pub min_lr_ratio: f64,
    /// Exponent of the polynomial schedule.
    #[schemars(extend("exclusiveMinimum" = 0), example = 2)]
    pub polynomial_power: f64,
    /// The one-cycle schedule.
    #[schemars(example = OneCycle { pct_start: 0.25, ..OneCycle::default() })]
    pub one_cycle: OneCycle,
    /// The plateau schedule.
    #[schemars(example = Plateau { patience: 2, ..Plateau::default() })]
    pub plateau: Plateau,
    /// The published optimizer's second factor on the rate; null is none.
    #[schemars(example = PublishedMultiplier { warmup_steps: 100, cosine: true })]
    pub published_multiplier: Option<PublishedMultiplier>,
    /// Learning rates that follow the models' losses.
    #[schemars(example = AdaptiveLr::None)]
    pub adaptive_lr: AdaptiveLr,
    /// Losses between updates of `adaptive_lr`.
    #[schemars(range(min = 1), example = 20)]
    pub adaptive_lr_every: u64,
    /// Losses that `adaptive_lr` looks at; relative needs 4.
    #[schemars(range(min = 2, max = 1000000), example = 100)]
    pub adaptive_lr_window: usize,
    /// Learning rates that follow the models' weights.
    #[schemars(example = ModelWeightLrScale::None)]
    pub model_weight_lr_scale: ModelWeightLrScale,
    /// Whether the models' weights move; validation needs reported scores.
    #[schemars(example = Weighting::Validation)]
    pub weighting: Weighting,
    /// Score difference that changes a weight by the factor e.
    #[schemars(extend("exclusiveMinimum" = 0), example = 0.05)]
    pub weighting_temperature: f64,
    /// Largest factor on a weight, up or down.
    #[schemars(range(min = 1), example = 2)]
    pub weighting_limit: f64,
    /// Greatest L2 norm of a model's gradient, over its trainable parameters:
    /// g ← g · min(1, c / (‖g‖₂ + 1e-6)). 0: not clipped.
    #[schemars(range(min = 0), example = 0.5)]
    pub max_grad_norm: f64,
    /// Every element of a gradient is clamped to [−c, c]. 0: not clipped. Only one of
    /// `max_grad_norm` and `max_grad_value` can be set.
    #[schemars(range(min = 0), example = 0.5)]
    pub max_grad_value: f64,
    /// Micro-batches per step.
    #[schemars(range(min = 1, max = 4294967295u32), example = 4)]
    pub gradient_accumulation_steps: u32,
    /// How micro-batches combine.
    #[schemars(example = GradientAccumulation::Mean)]
    pub gradient_accumulation: GradientAccumulation,
    /// Who shares with whom.
    #[schemars(example = SharePolicy::None)]
    pub share_policy: SharePolicy,
    /// The groups of `share_policy` custom; at least one with it, none without.
    #[schemars(example = vec![ShareGroup {
        name: "queries".into(),
        members: vec![
            ShareMember::whole("bert", "bert.encoder.layer.0.attention.self.query.weight"),
            ShareMember {
                slice: Some([1, 0, 768]),
                transpose: true,
                ..ShareMember::whole("gpt2", "transformer.h.0.attn.c_attn.weight")
            },
        ],
    }])]
    pub share_groups: Vec<ShareGroup>,
    /// How the gradients of a group mix.
    #[schemars(example = ShareRule::Mean)]
    pub share_rule: ShareRule,
    /// The matrix of `share_rule` influence; at least one entry with it, none without.
    #[schemars(example = vec![Influence { to: "gpt2".into(), from: "bert".into(), amount: 0.3 }])]
    pub share_influence: Vec<Influence>,
    /// α, the share of the group's gradient.
    #[schemars(range(min = 0, max = 1), example = 0.5)]
    pub share_alpha: f64,
    /// Steps between sharing; 0 never.
    #[schemars(example = 2)]
    pub share_every: u64,
    /// β, the pull of a synchronisation towards the group's mean.
    #[schemars(range(min = 0, max = 1), example = 0.05)]
    pub sync_beta: f64,
    /// Steps between synchronisations; 0 never.
    #[schemars(example = 10)]
    pub sync_every: u64,
    /// Largest relative rise of a loss that a synchronisation may cause on the current batch; null
    /// does not look. Carried out by whoever runs the models: the trainer,
    /// not gradient mode.
    #[schemars(range(min = 0), example = 0.01)]
    pub max_loss_increase: Option<f64>,
    /// Learning from each other's predictions; null is none. Carried out by whoever runs the
    /// models: the trainer, not gradient mode.
    #[schemars(example = Mutual { weight: Some(0.5), temperature: 2.0, ..Mutual::default() })]
    pub mutual: Option<Mutual>,
    /// Decay of a running mean (EMA) of each model's weights, by which models can be evaluated and
    /// saved. null: that of mean teachers where they are kept, else there is no such mean. Carried
    /// out by whoever owns the models: the trainer, not gradient mode.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1), example = 0.999)]
    pub ema_decay: Option<f64>,
    /// What products of matrices in the models' passes are computed in. Carried out by whoever runs
    /// the models: the trainer, not gradient mode.
    #[schemars(example = Precision::Bf16)]
    pub precision: Precision,
    /// Keep few activations of a model's forward part, and compute the others again in its backward
    /// part: less memory for about a third more time, the same gradients but for rounding. For
    /// training on a CPU; an error on a GPU. Carried out by whoever runs the models: the trainer,
    /// not gradient mode.
    #[schemars(example = true)]
    pub activation_checkpointing: bool,
    /// How attention is computed in training. `fused` keeps no matrix of scores, so memory grows
    /// with the length of sequences, not with its square. Carried out by whoever runs the models:
    /// the trainer, not gradient mode.
    #[schemars(example = AttentionForm::Fused)]
    pub attention: AttentionForm,
    /// Models whose passes run at the same time, each with an equal part of the threads; 1 is one
    /// after another with all threads, which holds the activations of one model at a time. 0: as
    /// `mutual` (passes that teach each other run together), the sizes of the passes,
    /// `memory_limit` and the cores decide; the log and the plan tell.
    /// The result does not depend on it. Carried out by whoever runs the models: the trainer, not
    /// gradient mode.
    #[schemars(example = 1)]
    pub max_parallel_models: usize,
    /// The rank of each model, by its name, where the trainer has a communicator of several ranks:
    /// a rank runs the passes of its own models and updates them alone. Every model is named. null:
    /// each rank is a replica of all models. Without effect on a trainer by itself. Carried out by
    /// whoever runs the models: the trainer, not gradient mode.
    #[schemars(example = placement_example())]
    pub placement: Option<BTreeMap<String, usize>>,
    /// Bytes that training may take in memory, by which `max_parallel_models` 0 decides:
    /// parameters, gradients, moments and passes of all models. Nothing enforces it. 0: what the
    /// system and the limits of control groups leave. Carried out by whoever runs the models: the
    /// trainer, not gradient mode.
    #[schemars(example = 8_000_000_000u64)]
    pub memory_limit: u64,
    /// What fresh models start from. Carried out by whoever makes the models: the trainer, not
    /// gradient mode.
    #[schemars(example = Start::Pretrained)]
    pub start: Start,
    /// Name of the model that fresh ones start from, with `start` pretrained; null is the only
    /// model of the run that was loaded with weights.
    #[schemars(example = &"bert")]
    pub start_from: Option<String>,
    /// Whether fresh models have rows of their token tables in common, where these stand for the
    /// same token in vocabularies that may differ. Has an effect with `share_policy` aligned and
    /// none. Carried out by whoever makes the models: the trainer, not gradient mode.
    #[schemars(example = TokenEmbeddings::Shared)]
    pub token_embeddings: TokenEmbeddings,
    /// With `token_embeddings` shared, the part of the models' mean in the gradient of such a row.
    #[schemars(range(min = 0, max = 1), example = 0.5)]
    pub token_alpha: f64,
    /// What happens to a model whose loss or gradient is NaN or infinite, or so large that a moment
    /// would overflow.
    #[schemars(example = NonFinite::Fail)]
    pub non_finite: NonFinite,
    /// Element type of the moments; muon needs f32.
    #[schemars(example = MomentDtype::BF16)]
    pub moment_dtype: MomentDtype,
    /// Steps between gradient-flow and distance metrics; 0 never.
    #[schemars(example = 100)]
    pub metrics_every: u64,
    /// Threads in all; 0 is one per core. The result does not depend on it.
    #[schemars(range(min = 0, max = 1024), example = 4)]
    pub n_threads: usize,
    /// Kernel build. The result does not depend on it.
    #[schemars(example = InstructionSet::Portable)]
    pub instruction_set: InstructionSet,
}

fn placement_example() -> BTreeMap<&'static str, usize> {
    BTreeMap::from([("bert", 0), ("gpt2", 1)])
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::AdamW,
            learning_rate: 3e-5,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: EpsPlacement::AfterBiasCorrection,
            amsgrad: false,
            weight_decay: 0.01,
            decay_matrices_only: true,
            momentum: 0.9,
            nesterov: false,
            muon_scale: 1.0,
            param_groups: Vec::new(),
            lr_schedule: LrSchedule::Constant,
            warmup_steps: 0,
            total_steps: 0,
            min_lr_ratio: 0.0,
            polynomial_power: 1.0,
            one_cycle: OneCycle::default(),
            plateau: Plateau::default(),
            published_multiplier: None,
            adaptive_lr: AdaptiveLr::Relative,
            adaptive_lr_every: 10,
            adaptive_lr_window: 50,
            model_weight_lr_scale: ModelWeightLrScale::Relative,
            weighting: Weighting::Fixed,
            weighting_temperature: 0.1,
            weighting_limit: 2.0,
            max_grad_norm: 1.0,
            max_grad_value: 0.0,
            gradient_accumulation_steps: 1,
            gradient_accumulation: GradientAccumulation::WeightedMean,
            share_policy: SharePolicy::Aligned,
            share_groups: Vec::new(),
            share_rule: ShareRule::None,
            share_influence: Vec::new(),
            share_alpha: 0.2,
            share_every: 1,
            sync_beta: 0.1,
            sync_every: 0,
            max_loss_increase: None,
            mutual: Some(Mutual::preset()),
            ema_decay: None,
            precision: Precision::F32,
            activation_checkpointing: false,
            attention: AttentionForm::Auto,
            max_parallel_models: 0,
            placement: None,
            memory_limit: 0,
            start: Start::Auto,
            start_from: None,
            token_embeddings: TokenEmbeddings::Own,
            token_alpha: 1.0,
            non_finite: NonFinite::Skip,
            moment_dtype: MomentDtype::F32,
            metrics_every: 0,
            n_threads: 0,
            instruction_set: InstructionSet::Auto,
        }
    }
}

impl Options {
    /// The published implementation: its classes, its un-divided sums, its `eps`, its multiplier
    /// (no warm-up, no cosine until set), sharing every step, synchronisation every 10 steps.
    pub fn paper() -> Self {
        Self {
            eps_placement: EpsPlacement::BeforeBiasCorrection,
            decay_matrices_only: false,
            published_multiplier: Some(PublishedMultiplier::default()),
            adaptive_lr: AdaptiveLr::Published,
            adaptive_lr_every: 100,
            adaptive_lr_window: 100,
            model_weight_lr_scale: ModelWeightLrScale::Published,
            max_grad_norm: 0.0,
            gradient_accumulation: GradientAccumulation::Sum,
            share_policy: SharePolicy::Paper,
            share_rule: ShareRule::Sum,
            sync_every: 10,
            non_finite: NonFinite::Ignore,
            mutual: None,
            start: Start::Own,
            ..Self::default()
        }
    }

    /// Every model by itself: nothing is shared, and rates follow the schedule alone; clipping and
    /// weight decay stay as by default.
    pub fn independent() -> Self {
        Self {
            share_policy: SharePolicy::None,
            share_rule: ShareRule::None,
            share_every: 0,
            adaptive_lr: AdaptiveLr::None,
            mutual: None,
            start: Start::Own,
            ..Self::default()
        }
    }

    /// PyTorch's AdamW with its defaults, and nothing else: no sharing, no synchronisation, no
    /// rates from losses or weights, no clipping, weight decay on every parameter. Beyond it, a
    /// step whose loss or gradient is not finite is skipped (`non_finite`).
    pub fn adamw() -> Self {
        Self {
            learning_rate: 1e-3,
            max_grad_norm: 0.0,
            decay_matrices_only: false,
            model_weight_lr_scale: ModelWeightLrScale::None,
            ..Self::independent()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        for options in
            [Options::default(), Options::paper(), Options::independent(), Options::adamw()]
        {
            options.validate().unwrap();
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
        }
    }
}

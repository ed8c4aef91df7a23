package mmopt

// #include <mmopt.h>
import "C"

// Preset is a set of options to start from.
type Preset uint32

// The presets.
const (
	// PresetDefault is the library's own: models learn from each other's predictions.
	PresetDefault Preset = C.MMOPT_PRESET_DEFAULT
	// PresetPaper reproduces the published implementation.
	PresetPaper Preset = C.MMOPT_PRESET_PAPER
	// PresetIndependent shares nothing.
	PresetIndependent Preset = C.MMOPT_PRESET_INDEPENDENT
	// PresetAdamW is PyTorch's AdamW for every model by itself.
	PresetAdamW Preset = C.MMOPT_PRESET_ADAMW
)

// SharePolicy says which parameters share.
type SharePolicy uint32

// The policies.
const (
	SharePolicyNone    SharePolicy = C.MMOPT_SHARE_POLICY_NONE
	SharePolicyPaper   SharePolicy = C.MMOPT_SHARE_POLICY_PAPER
	SharePolicyAligned SharePolicy = C.MMOPT_SHARE_POLICY_ALIGNED
	SharePolicyCustom  SharePolicy = C.MMOPT_SHARE_POLICY_CUSTOM
)

// ShareRule says how the gradients of a group mix.
type ShareRule uint32

// The rules.
const (
	ShareRuleNone      ShareRule = C.MMOPT_SHARE_RULE_NONE
	ShareRuleMean      ShareRule = C.MMOPT_SHARE_RULE_MEAN
	ShareRuleSum       ShareRule = C.MMOPT_SHARE_RULE_SUM
	ShareRuleGated     ShareRule = C.MMOPT_SHARE_RULE_GATED
	ShareRuleProject   ShareRule = C.MMOPT_SHARE_RULE_PROJECT
	ShareRuleInfluence ShareRule = C.MMOPT_SHARE_RULE_INFLUENCE
)

// AdaptiveLR says how learning rates follow the models' losses.
type AdaptiveLR uint32

// The ways.
const (
	AdaptiveLRNone      AdaptiveLR = C.MMOPT_ADAPTIVE_LR_NONE
	AdaptiveLRPublished AdaptiveLR = C.MMOPT_ADAPTIVE_LR_PUBLISHED
	AdaptiveLRRelative  AdaptiveLR = C.MMOPT_ADAPTIVE_LR_RELATIVE
)

// LRSchedule follows the linear warm-up.
type LRSchedule uint32

// The schedules.
const (
	LRScheduleConstant   LRSchedule = C.MMOPT_LR_SCHEDULE_CONSTANT
	LRScheduleLinear     LRSchedule = C.MMOPT_LR_SCHEDULE_LINEAR
	LRScheduleCosine     LRSchedule = C.MMOPT_LR_SCHEDULE_COSINE
	LRSchedulePolynomial LRSchedule = C.MMOPT_LR_SCHEDULE_POLYNOMIAL
	LRScheduleOneCycle   LRSchedule = C.MMOPT_LR_SCHEDULE_ONE_CYCLE
	LRSchedulePlateau    LRSchedule = C.MMOPT_LR_SCHEDULE_PLATEAU
	LRSchedulePublished  LRSchedule = C.MMOPT_LR_SCHEDULE_PUBLISHED
)

// NonFiniteAction says what happens to a model whose loss or gradient is NaN or infinite.
type NonFiniteAction uint32

// What may happen.
const (
	// NonFiniteSkip: it skips the step, the others go on.
	NonFiniteSkip NonFiniteAction = C.MMOPT_NON_FINITE_SKIP
	// NonFiniteFail: the step fails before anything changes.
	NonFiniteFail NonFiniteAction = C.MMOPT_NON_FINITE_FAIL
	// NonFiniteIgnore: nobody looks.
	NonFiniteIgnore NonFiniteAction = C.MMOPT_NON_FINITE_IGNORE
)

// Device is where models compute.
type Device uint32

// The devices.
const (
	CPU  Device = C.MMOPT_DEVICE_CPU
	CUDA Device = C.MMOPT_DEVICE_CUDA
)

// TrainerOptions say how models are trained together. Start from DefaultTrainerOptions; the
// meaning, range and default of each field stand in mmopt.h.
type TrainerOptions struct {
	defaulted   bool
	preset      Preset
	SharePolicy SharePolicy
	ShareRule   ShareRule
	AdaptiveLR  AdaptiveLR
	// LearningRate is the base rate.
	LearningRate, Beta1, Beta2, Eps, WeightDecay float64
	// MaxGradNorm is the greatest norm of a model's gradient; 0 does not clip.
	MaxGradNorm float64
	// ShareAlpha of the group's gradient is mixed in every ShareEvery steps.
	ShareAlpha float64
	ShareEvery uint64
	// SyncBeta pulls towards the group's mean every SyncEvery steps.
	SyncBeta  float64
	SyncEvery uint64
	// LRSchedule after WarmupSteps, to MinLRRatio at TotalSteps.
	LRSchedule              LRSchedule
	WarmupSteps, TotalSteps uint64
	MinLRRatio              float64
	// GradientAccumulationSteps is the number of micro-batches per step.
	GradientAccumulationSteps int
	NonFinite                 NonFiniteAction
	Device                    Device
	DeviceID                  int
	// TF32 lets a GPU multiply f32 matrices with 10 bits of mantissa: faster, less exact.
	TF32 bool
	// NThreads in all; 0 takes every core.
	NThreads int
	// MaxSessions: shapes that each model keeps a session for; 0: 16.
	MaxSessions int
	// RuntimePath is ONNX Runtime's library; empty searches.
	RuntimePath string
	// OptionsJSON is a JSON object with any options, merged over the fields above, or empty;
	// docs/options.md lists them.
	OptionsJSON string
}

// DefaultTrainerOptions are the options of a preset.
func DefaultTrainerOptions(preset Preset) TrainerOptions {
	var raw C.mmopt_trainer_options
	C.mmopt_trainer_options_init(&raw, C.uint32_t(preset))
	return TrainerOptions{
		defaulted: true, preset: preset,
		SharePolicy: SharePolicy(raw.share_policy), ShareRule: ShareRule(raw.share_rule),
		AdaptiveLR:   AdaptiveLR(raw.adaptive_lr),
		LearningRate: float64(raw.learning_rate), Beta1: float64(raw.beta1),
		Beta2: float64(raw.beta2), Eps: float64(raw.eps), WeightDecay: float64(raw.weight_decay),
		MaxGradNorm: float64(raw.max_grad_norm),
		ShareAlpha:  float64(raw.share_alpha), ShareEvery: uint64(raw.share_every),
		SyncBeta: float64(raw.sync_beta), SyncEvery: uint64(raw.sync_every),
		LRSchedule: LRSchedule(raw.lr_schedule), MinLRRatio: float64(raw.min_lr_ratio),
		WarmupSteps: uint64(raw.warmup_steps), TotalSteps: uint64(raw.total_steps),
		GradientAccumulationSteps: int(raw.gradient_accumulation_steps),
		NonFinite:                 NonFiniteAction(raw.non_finite),
		Device:                    Device(raw.device), DeviceID: int(raw.device_id), TF32: raw.tf32 != 0,
		NThreads: int(raw.n_threads), MaxSessions: int(raw.max_sessions),
	}
}

func (o *TrainerOptions) c(a *arena) *C.mmopt_trainer_options {
	raw := array[C.mmopt_trainer_options](a, 1)
	if o == nil {
		C.mmopt_trainer_options_init(raw, C.MMOPT_PRESET_DEFAULT)
		return raw
	}
	if !o.defaulted {
		a.fail(invalid("TrainerOptions must start from DefaultTrainerOptions"))
	}
	C.mmopt_trainer_options_init(raw, C.uint32_t(o.preset))
	raw.share_policy, raw.share_rule = C.uint32_t(o.SharePolicy), C.uint32_t(o.ShareRule)
	raw.adaptive_lr = C.uint32_t(o.AdaptiveLR)
	raw.learning_rate = C.double(o.LearningRate)
	raw.beta1, raw.beta2 = C.double(o.Beta1), C.double(o.Beta2)
	raw.eps, raw.weight_decay = C.double(o.Eps), C.double(o.WeightDecay)
	raw.max_grad_norm = C.double(o.MaxGradNorm)
	raw.share_alpha, raw.share_every = C.double(o.ShareAlpha), C.uint64_t(o.ShareEvery)
	raw.sync_beta, raw.sync_every = C.double(o.SyncBeta), C.uint64_t(o.SyncEvery)
	raw.lr_schedule, raw.min_lr_ratio = C.uint32_t(o.LRSchedule), C.double(o.MinLRRatio)
	raw.warmup_steps, raw.total_steps = C.uint64_t(o.WarmupSteps), C.uint64_t(o.TotalSteps)
	raw.gradient_accumulation_steps = a.uint32("GradientAccumulationSteps",
		o.GradientAccumulationSteps)
	raw.non_finite = C.uint32_t(o.NonFinite)
	raw.device, raw.device_id = C.uint32_t(o.Device), C.int32_t(o.DeviceID)
	raw.tf32 = flag(o.TF32)
	raw.n_threads = a.size("NThreads", o.NThreads)
	raw.max_sessions = a.size("MaxSessions", o.MaxSessions)
	raw.runtime_path = a.optional(o.RuntimePath)
	raw.options_json = a.optional(o.OptionsJSON)
	return raw
}

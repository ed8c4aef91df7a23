package mmopt

// #include <mmopt.h>
import "C"

// Preset is a set of options to start from.
type Preset uint32

// The presets.
const (
	// Joint is the library's own: models share gradients along roles.
	Joint Preset = C.MMOPT_PRESET_DEFAULT
	// Paper reproduces the published implementation.
	Paper Preset = C.MMOPT_PRESET_PAPER
	// Independent shares nothing.
	Independent Preset = C.MMOPT_PRESET_INDEPENDENT
)

// Policy says which parameters belong together.
type Policy uint32

// The policies.
const (
	NoPolicy      Policy = C.MMOPT_SHARE_POLICY_NONE
	PaperPolicy   Policy = C.MMOPT_SHARE_POLICY_PAPER
	AlignedPolicy Policy = C.MMOPT_SHARE_POLICY_ALIGNED
	CustomPolicy  Policy = C.MMOPT_SHARE_POLICY_CUSTOM
)

// Rule says how the gradients of a group mix.
type Rule uint32

// The rules.
const (
	NoRule        Rule = C.MMOPT_SHARE_RULE_NONE
	MeanRule      Rule = C.MMOPT_SHARE_RULE_MEAN
	SumRule       Rule = C.MMOPT_SHARE_RULE_SUM
	GatedRule     Rule = C.MMOPT_SHARE_RULE_GATED
	ProjectRule   Rule = C.MMOPT_SHARE_RULE_PROJECT
	InfluenceRule Rule = C.MMOPT_SHARE_RULE_INFLUENCE
)

// Convergence says how learning rates follow the models' losses.
type Convergence uint32

// The ways.
const (
	NoConvergence        Convergence = C.MMOPT_ADAPTIVE_LR_NONE
	PublishedConvergence Convergence = C.MMOPT_ADAPTIVE_LR_PUBLISHED
	RelativeConvergence  Convergence = C.MMOPT_ADAPTIVE_LR_RELATIVE
)

// Schedule follows the linear warm-up.
type Schedule uint32

// The schedules.
const (
	ConstantSchedule Schedule = C.MMOPT_SCHEDULE_CONSTANT
	LinearSchedule   Schedule = C.MMOPT_SCHEDULE_LINEAR
	CosineSchedule   Schedule = C.MMOPT_SCHEDULE_COSINE
	CustomSchedule   Schedule = C.MMOPT_SCHEDULE_CUSTOM
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
	Policy      Policy
	Rule        Rule
	Convergence Convergence
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
	// Schedule after WarmupSteps, to ScheduleFloor at TotalSteps.
	Schedule                Schedule
	WarmupSteps, TotalSteps uint64
	ScheduleFloor           float64
	// Accumulation is the number of micro-batches per step.
	Accumulation int
	// SkipNonFinite leaves out a model with a non-finite loss or gradient; else the step fails.
	SkipNonFinite bool
	Device        Device
	DeviceID      int
	// TF32 lets a GPU multiply f32 matrices with 10 bits of mantissa: faster, less exact.
	TF32 bool
	// Threads in all; 0 takes every core.
	Threads int
	// MaxSessions: shapes that each model keeps a session for; 0: 16.
	MaxSessions int
	// RuntimePath is ONNX Runtime's library; empty searches.
	RuntimePath string
	// Optimizer is a JSON object with further options, over the fields above; or empty.
	Optimizer string
}

// DefaultTrainerOptions are the options of a preset.
func DefaultTrainerOptions(preset Preset) TrainerOptions {
	var raw C.mmopt_trainer_options
	C.mmopt_trainer_options_init(&raw, C.uint32_t(preset))
	return TrainerOptions{
		defaulted: true, preset: preset,
		Policy: Policy(raw.policy), Rule: Rule(raw.rule),
		Convergence:  Convergence(raw.convergence),
		LearningRate: float64(raw.learning_rate), Beta1: float64(raw.beta1),
		Beta2: float64(raw.beta2), Eps: float64(raw.eps), WeightDecay: float64(raw.weight_decay),
		MaxGradNorm: float64(raw.max_grad_norm),
		ShareAlpha:  float64(raw.share_alpha), ShareEvery: uint64(raw.share_every),
		SyncBeta: float64(raw.sync_beta), SyncEvery: uint64(raw.sync_every),
		Schedule: Schedule(raw.schedule), ScheduleFloor: float64(raw.schedule_floor),
		WarmupSteps: uint64(raw.warmup_steps), TotalSteps: uint64(raw.total_steps),
		Accumulation: int(raw.accumulation), SkipNonFinite: raw.skip_non_finite != 0,
		Device: Device(raw.device), DeviceID: int(raw.device_id), TF32: raw.tf32 != 0,
		Threads: int(raw.n_threads), MaxSessions: int(raw.max_sessions),
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
	raw.policy, raw.rule = C.uint32_t(o.Policy), C.uint32_t(o.Rule)
	raw.convergence = C.uint32_t(o.Convergence)
	raw.learning_rate = C.double(o.LearningRate)
	raw.beta1, raw.beta2 = C.double(o.Beta1), C.double(o.Beta2)
	raw.eps, raw.weight_decay = C.double(o.Eps), C.double(o.WeightDecay)
	raw.max_grad_norm = C.double(o.MaxGradNorm)
	raw.share_alpha, raw.share_every = C.double(o.ShareAlpha), C.uint64_t(o.ShareEvery)
	raw.sync_beta, raw.sync_every = C.double(o.SyncBeta), C.uint64_t(o.SyncEvery)
	raw.schedule, raw.schedule_floor = C.uint32_t(o.Schedule), C.double(o.ScheduleFloor)
	raw.warmup_steps, raw.total_steps = C.uint64_t(o.WarmupSteps), C.uint64_t(o.TotalSteps)
	raw.accumulation = a.uint32("Accumulation", o.Accumulation)
	raw.skip_non_finite = flag(o.SkipNonFinite)
	raw.device, raw.device_id = C.uint32_t(o.Device), C.int32_t(o.DeviceID)
	raw.tf32 = flag(o.TF32)
	raw.n_threads = a.size("Threads", o.Threads)
	raw.max_sessions = a.size("MaxSessions", o.MaxSessions)
	raw.runtime_path = a.optional(o.RuntimePath)
	raw.optimizer_json = a.optional(o.Optimizer)
	return raw
}

//go:build cgo

package mmopt

// The names that constants are printed by.

var namesPreset = map[Preset]string{
	PresetDefault:     "PresetDefault",
	PresetPaper:       "PresetPaper",
	PresetIndependent: "PresetIndependent",
	PresetAdamW:       "PresetAdamW",
}

// String is the constant's name.
func (v Preset) String() string { return named("Preset", v, namesPreset) }

var namesSharePolicy = map[SharePolicy]string{
	SharePolicyNone:    "SharePolicyNone",
	SharePolicyPaper:   "SharePolicyPaper",
	SharePolicyAligned: "SharePolicyAligned",
	SharePolicyCustom:  "SharePolicyCustom",
}

// String is the constant's name.
func (v SharePolicy) String() string { return named("SharePolicy", v, namesSharePolicy) }

var namesShareRule = map[ShareRule]string{
	ShareRuleNone:      "ShareRuleNone",
	ShareRuleMean:      "ShareRuleMean",
	ShareRuleSum:       "ShareRuleSum",
	ShareRuleGated:     "ShareRuleGated",
	ShareRuleProject:   "ShareRuleProject",
	ShareRuleInfluence: "ShareRuleInfluence",
}

// String is the constant's name.
func (v ShareRule) String() string { return named("ShareRule", v, namesShareRule) }

var namesAdaptiveLR = map[AdaptiveLR]string{
	AdaptiveLRNone:      "AdaptiveLRNone",
	AdaptiveLRPublished: "AdaptiveLRPublished",
	AdaptiveLRRelative:  "AdaptiveLRRelative",
}

// String is the constant's name.
func (v AdaptiveLR) String() string { return named("AdaptiveLR", v, namesAdaptiveLR) }

var namesLRSchedule = map[LRSchedule]string{
	LRScheduleConstant:   "LRScheduleConstant",
	LRScheduleLinear:     "LRScheduleLinear",
	LRScheduleCosine:     "LRScheduleCosine",
	LRSchedulePolynomial: "LRSchedulePolynomial",
	LRScheduleOneCycle:   "LRScheduleOneCycle",
	LRSchedulePlateau:    "LRSchedulePlateau",
	LRSchedulePublished:  "LRSchedulePublished",
}

// String is the constant's name.
func (v LRSchedule) String() string { return named("LRSchedule", v, namesLRSchedule) }

var namesNonFiniteAction = map[NonFiniteAction]string{
	NonFiniteSkip:   "NonFiniteSkip",
	NonFiniteFail:   "NonFiniteFail",
	NonFiniteIgnore: "NonFiniteIgnore",
}

// String is the constant's name.
func (v NonFiniteAction) String() string { return named("NonFiniteAction", v, namesNonFiniteAction) }

var namesDevice = map[Device]string{
	CPU:  "CPU",
	CUDA: "CUDA",
}

// String is the constant's name.
func (v Device) String() string { return named("Device", v, namesDevice) }

var namesTask = map[Task]string{
	SequenceClassification: "SequenceClassification",
	TokenClassification:    "TokenClassification",
	QuestionAnswering:      "QuestionAnswering",
	MaskedLM:               "MaskedLM",
	CausalLM:               "CausalLM",
}

// String is the constant's name.
func (v Task) String() string { return named("Task", v, namesTask) }

var namesLossKind = map[LossKind]string{
	SequenceClassificationLoss: "SequenceClassificationLoss",
	TokenClassificationLoss:    "TokenClassificationLoss",
	QuestionAnsweringLoss:      "QuestionAnsweringLoss",
	MaskedLMLoss:               "MaskedLMLoss",
	CausalLMLoss:               "CausalLMLoss",
	MeanSquaredError:           "MeanSquaredError",
	OutputLoss:                 "OutputLoss",
}

// String is the constant's name.
func (v LossKind) String() string { return named("LossKind", v, namesLossKind) }

var namesLogLevel = map[LogLevel]string{
	LogOff:     "LogOff",
	LogError:   "LogError",
	LogWarning: "LogWarning",
	LogInfo:    "LogInfo",
	LogDebug:   "LogDebug",
}

// String is the constant's name.
func (v LogLevel) String() string { return named("LogLevel", v, namesLogLevel) }

var namesPhase = map[Phase]string{
	PhaseForwardBackward: "PhaseForwardBackward",
	PhaseStep:            "PhaseStep",
	PhaseEvaluate:        "PhaseEvaluate",
}

// String is the constant's name.
func (v Phase) String() string { return named("Phase", v, namesPhase) }

var namesSpecialToken = map[SpecialToken]string{
	PadToken:  "PadToken",
	UnkToken:  "UnkToken",
	ClsToken:  "ClsToken",
	SepToken:  "SepToken",
	MaskToken: "MaskToken",
	BosToken:  "BosToken",
	EosToken:  "EosToken",
}

// String is the constant's name.
func (v SpecialToken) String() string { return named("SpecialToken", v, namesSpecialToken) }

var namesTokenizerAlgorithm = map[TokenizerAlgorithm]string{
	AutoAlgorithm: "AutoAlgorithm",
	WordPiece:     "WordPiece",
	ByteLevelBPE:  "ByteLevelBPE",
}

// String is the constant's name.
func (v TokenizerAlgorithm) String() string {
	return named("TokenizerAlgorithm", v, namesTokenizerAlgorithm)
}

var namesObjective = map[Objective]string{
	Causal:        "Causal",
	Masked:        "Masked",
	AutoObjective: "AutoObjective",
}

// String is the constant's name.
func (v Objective) String() string { return named("Objective", v, namesObjective) }

var namesMetric = map[Metric]string{
	MetricScore: "MetricScore",
	MetricLoss:  "MetricLoss",
}

// String is the constant's name.
func (v Metric) String() string { return named("Metric", v, namesMetric) }

var namesStopReason = map[StopReason]string{
	StopEpochs:        "StopEpochs",
	StopMaxSteps:      "StopMaxSteps",
	StopEarlyStopping: "StopEarlyStopping",
	StopCancelled:     "StopCancelled",
}

// String is the constant's name.
func (v StopReason) String() string { return named("StopReason", v, namesStopReason) }

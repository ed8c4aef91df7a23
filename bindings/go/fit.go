package mmopt

// #include "callbacks.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Metric is what the evaluations of a fit are compared by.
type Metric uint32

// The metrics.
const (
	// MetricScore is Scores.Score; greater is better.
	MetricScore Metric = C.MMOPT_METRIC_SCORE
	// MetricLoss is Scores.Loss; less is better.
	MetricLoss Metric = C.MMOPT_METRIC_LOSS
)

// FitOptions say how a fit goes. Start from DefaultFitOptions. "Every so many steps" counts the
// steps of the fit.
type FitOptions struct {
	defaulted bool
	// Epochs of the loader after which it ends; 0: no limit; default 3.
	Epochs uint64
	// MaxSteps after which it ends, if Epochs does not end it before; 0: no limit.
	MaxSteps uint64
	// EvaluateEvery so many steps, and always at an epoch's end and after MaxSteps; 0: only then.
	EvaluateEvery uint64
	// Metric that evaluations are compared by.
	Metric Metric
	// KeepBest keeps each model's weights of its own best evaluation, and puts them back at the end,
	// unless the callback ended it.
	KeepBest bool
	// Monitor is the name of the model whose metric stops early; "": the mean over all models.
	Monitor string
	// Patience is how many evaluations in a row may be no better than the best; 0: any number.
	Patience uint64
	// MinDelta is by how much an evaluation must exceed the best, in the metric's terms.
	MinDelta float64
	// UseEMAWeights evaluates the running means of the weights in place of the weights.
	UseEMAWeights bool
	// Resume goes on from the last checkpoint in CheckpointDir, if there is one.
	Resume bool
	// Evaluate says how predictions are made for scores; nil: the defaults.
	Evaluate *EvaluateOptions
	// CheckpointDir is where checkpoints are written, at the end too; "": none.
	CheckpointDir string
	// CheckpointEvery so many steps; 0: none.
	CheckpointEvery uint64
	// CheckpointMinutes after which one is written; 0: none.
	CheckpointMinutes float64
	// LogEvery so many steps, at least 1.
	LogEvery uint64
	// JSONLPath, CSVPath and TensorboardDir are where logs go; "": none.
	JSONLPath, CSVPath, TensorboardDir string
	// HistogramEvery so many steps the event file gets histograms; 0: never.
	HistogramEvery uint64
	// SharingImages gives the event file images of the cosines between models' gradients.
	SharingImages bool
}

// DefaultFitOptions are the library's defaults.
func DefaultFitOptions() FitOptions {
	var raw C.mmopt_fit_options
	C.mmopt_fit_options_init(&raw)
	return FitOptions{
		defaulted: true, Epochs: uint64(raw.epochs), MaxSteps: uint64(raw.max_steps),
		EvaluateEvery: uint64(raw.evaluate_every), Metric: Metric(raw.metric),
		KeepBest: raw.keep_best != 0, Patience: uint64(raw.patience),
		MinDelta: float64(raw.min_delta), UseEMAWeights: raw.use_ema_weights != 0,
		Resume: raw.resume != 0, CheckpointEvery: uint64(raw.checkpoint_every),
		CheckpointMinutes: float64(raw.checkpoint_minutes), LogEvery: uint64(raw.log_every),
		HistogramEvery: uint64(raw.histogram_every), SharingImages: raw.sharing_images != 0,
	}
}

func (o *FitOptions) c(a *arena) *C.mmopt_fit_options {
	raw := array[C.mmopt_fit_options](a, 1)
	C.mmopt_fit_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "FitOptions")
	raw.epochs, raw.max_steps = C.uint64_t(o.Epochs), C.uint64_t(o.MaxSteps)
	raw.evaluate_every, raw.metric = C.uint64_t(o.EvaluateEvery), C.uint32_t(o.Metric)
	raw.keep_best, raw.monitor = flag(o.KeepBest), a.optional(o.Monitor)
	raw.patience, raw.min_delta = C.uint64_t(o.Patience), C.double(o.MinDelta)
	raw.use_ema_weights, raw.resume = flag(o.UseEMAWeights), flag(o.Resume)
	raw.evaluate = o.Evaluate.c(a)
	raw.checkpoint_dir = a.optional(o.CheckpointDir)
	raw.checkpoint_every = C.uint64_t(o.CheckpointEvery)
	raw.checkpoint_minutes = C.double(o.CheckpointMinutes)
	raw.log_every, raw.jsonl_path = C.uint64_t(o.LogEvery), a.optional(o.JSONLPath)
	raw.csv_path, raw.tensorboard_dir = a.optional(o.CSVPath), a.optional(o.TensorboardDir)
	raw.histogram_every = C.uint64_t(o.HistogramEvery)
	raw.sharing_images = flag(o.SharingImages)
	return raw
}

// FitProgress is where a fit stands.
type FitProgress struct {
	// Evaluated: an evaluation of all models has just been done, else a step.
	Evaluated bool
	// Best: of an evaluation, what early stopping looks at is the best so far.
	Best bool
	// Step of the trainer; Epoch is how many epochs of the fit are done; Batch how many of the
	// Batches of the present one.
	Step, Epoch, Batch, Batches uint64
	// Losses of the models: over the step's micro-batches, or over the evaluated corpus.
	Losses []float64
	// Scores of the models; nil for a step.
	Scores []float64
	// Monitored: of an evaluation, what early stopping looks at; else NaN.
	Monitored float64
}

// StopReason is why a fit ended.
type StopReason uint32

// The reasons.
const (
	StopEpochs        StopReason = C.MMOPT_STOP_REASON_EPOCHS
	StopMaxSteps      StopReason = C.MMOPT_STOP_REASON_MAX_STEPS
	StopEarlyStopping StopReason = C.MMOPT_STOP_REASON_EARLY_STOPPING
	StopCancelled     StopReason = C.MMOPT_STOP_REASON_CANCELLED
)

// FitBest is a best evaluation: its score in the metric's terms, NaN without evaluation, and the
// trainer's step.
type FitBest struct {
	Score float64
	Step  uint64
}

// FitResult is what a fit came to.
type FitResult struct {
	// Steps and Epochs of the fit, those before a resume included.
	Steps, Epochs uint64
	Reason        StopReason
	// RestoredBest: the best weights are in place.
	RestoredBest bool
	// Best of what early stopping looks at.
	Best FitBest
	// Models are each model's best.
	Models []FitBest
}

//export mmoptGoFit
func mmoptGoFit(handle C.uintptr_t, p *C.mmopt_fit_progress) C.uint32_t {
	c := callbacksOf(handle)
	numbers := func(from *C.double) []float64 {
		if from == nil {
			return nil
		}
		return append([]float64(nil), unsafe.Slice((*float64)(from), int(p.n_models))...)
	}
	goesOn := false
	c.run(func() {
		goesOn = c.fit(FitProgress{
			Evaluated: p.event == C.MMOPT_FIT_EVENT_EVALUATION, Best: p.is_best != 0,
			Step: uint64(p.step), Epoch: uint64(p.epoch), Batch: uint64(p.batch),
			Batches: uint64(p.n_batches), Losses: numbers(p.losses), Scores: numbers(p.scores),
			Monitored: float64(p.monitored),
		})
	})
	if goesOn {
		return 0
	}
	return 1
}

// Fit is the usual training loop as one call: passes, steps, evaluation, early stopping,
// checkpoints, logs. evaluation: no loader, one for all models, or one for each. f, which may be
// nil, is called after each step and evaluation on the goroutine of this call; false ends the fit
// there, which is no error. It must not use the trainer or the loaders. When ctx is done the fit
// ends with the context's error. Interrupted anywhere, it can be resumed from its last checkpoint
// and comes to the same bits.
func (t *Trainer) Fit(
	ctx context.Context, loader *Loader, evaluation []*Loader, options *FitOptions,
	f func(FitProgress) bool,
) (*FitResult, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(loader)
	defer runtime.KeepAlive(evaluation)
	var a arena
	defer a.free()
	o, n := options.c(&a), len(evaluation)
	loaders := array[*C.mmopt_loader](&a, n)
	for i, one := range evaluation {
		unsafe.Slice(loaders, n)[i] = one.c()
	}
	handle := C.uintptr_t(0)
	if f != nil && t.c() != nil {
		t.callbacks.fit, handle = f, C.uintptr_t(t.handle)
		defer func() { t.callbacks.fit = nil }()
	}
	raw := array[C.mmopt_fit_result](&a, 1)
	best := array[C.mmopt_fit_best](&a, max(t.nModels, 1))
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_go_fit(t.c(), loader.c(), loaders, C.size_t(n), o, handle, raw, best)
	})
	if err != nil {
		return nil, err
	}
	result := &FitResult{
		Steps: uint64(raw.steps), Epochs: uint64(raw.epochs), Reason: StopReason(raw.reason),
		RestoredBest: raw.restored_best != 0,
		Best:         FitBest{float64(raw.best_score), uint64(raw.best_step)},
	}
	for _, one := range unsafe.Slice(best, t.nModels) {
		result.Models = append(result.Models, FitBest{float64(one.score), uint64(one.step)})
	}
	return result, nil
}

// FindLearningRateOptions say how learning rates are tried. Start from
// DefaultFindLearningRateOptions.
type FindLearningRateOptions struct {
	defaulted bool
	// MinLR is the first rate, default 1e-7, and MaxLR the last, default 1.
	MinLR, MaxLR float64
	// Steps at most; default 100.
	Steps uint64
	// Smoothing is how much of the smoothed loss stays from step to step; default 0.95.
	Smoothing float64
	// Divergence ends it when the mean loss exceeds so many times the least one; default 4.
	Divergence float64
}

// DefaultFindLearningRateOptions are the library's defaults.
func DefaultFindLearningRateOptions() FindLearningRateOptions {
	var raw C.mmopt_find_learning_rate_options
	C.mmopt_find_learning_rate_options_init(&raw)
	return FindLearningRateOptions{
		true, float64(raw.min_lr), float64(raw.max_lr), uint64(raw.n_steps),
		float64(raw.smoothing), float64(raw.divergence),
	}
}

// LearningRateCurve is what the range test found.
type LearningRateCurve struct {
	// Rates that were tried.
	Rates []float64
	// Losses of each model, smoothed, at each rate.
	Losses [][]float64
	// Suggestions are a rate for each model, and Suggestion one for all; NaN where no loss falls.
	Suggestions []float64
	Suggestion  float64
}

// FindLearningRate tries rates that grow from step to step and watches the losses; then it puts
// everything back: weights, moments, schedules, counters of dropout, the loader's place.
func (t *Trainer) FindLearningRate(
	ctx context.Context, loader *Loader, options *FindLearningRateOptions,
) (*LearningRateCurve, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(loader)
	var a arena
	defer a.free()
	o := array[C.mmopt_find_learning_rate_options](&a, 1)
	C.mmopt_find_learning_rate_options_init(o)
	if options != nil {
		a.defaulted(options.defaulted, "FindLearningRateOptions")
		o.min_lr, o.max_lr = C.double(options.MinLR), C.double(options.MaxLR)
		o.n_steps, o.smoothing = C.uint64_t(options.Steps), C.double(options.Smoothing)
		o.divergence = C.double(options.Divergence)
	}
	// More steps than the library takes need no room: it refuses them.
	steps, n := int(min(o.n_steps, 1<<20)), max(t.nModels, 1)
	rates, losses := array[C.double](&a, max(steps, 1)), array[C.double](&a, max(n*steps, 1))
	suggestions := array[C.double](&a, n)
	result := array[C.mmopt_learning_rate_range](&a, 1)
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_find_learning_rate(
			t.c(), loader.c(), o, rates, losses, suggestions, result)
	})
	if err != nil {
		return nil, err
	}
	found := int(result.n_rates)
	numbers := func(from *C.double, at, n int) []float64 {
		all := unsafe.Slice((*float64)(from), at+n)
		return append([]float64(nil), all[at:]...)
	}
	curve := &LearningRateCurve{
		Rates: numbers(rates, 0, found), Suggestions: numbers(suggestions, 0, t.nModels),
		Suggestion: float64(result.suggestion),
	}
	for m := range t.nModels {
		curve.Losses = append(curve.Losses, numbers(losses, m*steps, found))
	}
	return curve, nil
}

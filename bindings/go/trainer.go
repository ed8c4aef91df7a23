package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"runtime/cgo"
	"sync/atomic"
	"unsafe"
)

// Trainer holds several models and the optimizer that trains them together. It belongs to one
// goroutine at a time.
//
// A callback that refers to its trainer keeps it reachable: such a trainer must be closed.
type Trainer struct {
	object
	nModels   int
	callbacks *callbacks
	handle    cgo.Handle
	switched  *cancelSwitch
}

func (t *Trainer) c() *C.mmopt_trainer {
	if t == nil {
		return nil
	}
	return (*C.mmopt_trainer)(t.address())
}

func freeTrainer(p unsafe.Pointer) { C.mmopt_trainer_free((*C.mmopt_trainer)(p)) }

// NewTrainer reads the models and plans what they share; nil options: the defaults. The models may
// be closed afterwards.
func NewTrainer(models []*Model, options *TrainerOptions) (*Trainer, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(models)
	o, all := options.c(&a), array[*C.mmopt_model](&a, len(models))
	for i, m := range models {
		unsafe.Slice(all, len(models))[i] = m.c()
	}
	var made *C.mmopt_trainer
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_create(o, all, C.size_t(len(models)), &made)
	})
	if err != nil {
		return nil, err
	}
	t := &Trainer{nModels: len(models), callbacks: &callbacks{}}
	t.handle = cgo.NewHandle(t.callbacks)
	t.own(unsafe.Pointer(made), freeTrainer, t.handle.Delete)
	cancelToken, err := t.newCancelToken()
	if err != nil {
		t.Close()
		return nil, err
	}
	t.switched = &cancelSwitch{cancelToken: cancelToken}
	return t, nil
}

// done turns the error of a call into Go's, and goes on with what its callbacks left.
func (t *Trainer) done(raw *C.mmopt_error) error {
	err := take(raw)
	if t.resource == nil {
		return err
	}
	return t.callbacks.settle(err)
}

// TrainResult is what a forward and backward pass of one model gave.
type TrainResult struct {
	Loss float64
	// Correct predictions, and Labels that count.
	Correct, Labels uint64
	// MutualLoss is what mutual learning added to the loss, with its weight.
	MutualLoss float64
}

// StepReport is what a step did.
type StepReport struct {
	// Step is its number, from 1.
	Step uint64
	// Updated models, and those Skipped for a non-finite loss or gradient.
	Updated, Skipped int
	// Shared gradients, and Synced parameters.
	Shared, Synced bool
}

func report(r *C.mmopt_step_report) StepReport {
	return StepReport{
		Step: uint64(r.step), Updated: int(r.n_updated), Skipped: int(r.n_skipped),
		Shared: r.shared != 0, Synced: r.synced != 0,
	}
}

// Rates are a model's learning rate, the factors it is made of, and other numbers of its last step.
type Rates struct {
	Base, Schedule, Adaptive, Scale, Multiplier, Effective float64
	// GradientNorm before clipping; 0 where nothing needed it.
	GradientNorm float64
	// Weight of the model over the sum of all.
	Weight float64
	// Skipped steps.
	Skipped uint64
}

func rates(r *C.mmopt_rates) Rates {
	return Rates{
		float64(r.base), float64(r.schedule), float64(r.adaptive), float64(r.scale),
		float64(r.multiplier), float64(r.effective), float64(r.gradient_norm), float64(r.weight),
		uint64(r.n_skipped),
	}
}

// cancelSwitch is a trainer's cancelToken, and whether the host has thrown it.
type cancelSwitch struct {
	cancelToken *CancelToken
	thrown      atomic.Bool
}

// CancelToken ends passes of a trainer from any goroutine. It keeps working after the trainer is
// closed, and then does nothing. Most programs use a context instead.
type CancelToken struct {
	object
	switched *cancelSwitch
}

func (c *CancelToken) c() *C.mmopt_cancel_token {
	if c == nil {
		return nil
	}
	return (*C.mmopt_cancel_token)(c.address())
}

func freeCancelToken(p unsafe.Pointer) { C.mmopt_cancel_token_free((*C.mmopt_cancel_token)(p)) }

func (t *Trainer) newCancelToken() (*CancelToken, error) {
	defer runtime.KeepAlive(t)
	var made *C.mmopt_cancel_token
	if err := t.done(C.mmopt_trainer_cancel_token(t.c(), &made)); err != nil {
		return nil, err
	}
	c := &CancelToken{switched: t.switched}
	c.own(unsafe.Pointer(made), freeCancelToken)
	return c, nil
}

// CancelToken is a switch that ends passes.
func (t *Trainer) CancelToken() (*CancelToken, error) { return t.newCancelToken() }

func (c *CancelToken) cancel() error {
	defer runtime.KeepAlive(c)
	return take(C.mmopt_cancel_token_cancel(c.c()))
}

func (c *CancelToken) reset() error {
	defer runtime.KeepAlive(c)
	return take(C.mmopt_cancel_token_reset(c.c()))
}

// Cancel makes passes that run, and all later ones, fail with ErrCancelled.
func (c *CancelToken) Cancel() error {
	c.switched.thrown.Store(true)
	return c.cancel()
}

// Reset lets passes run again.
func (c *CancelToken) Reset() error {
	c.switched.thrown.Store(false)
	return c.reset()
}

// watch cancels running passes when ctx is done. The result ends that; it turns a cancellation of
// the library into that of the context.
func (t *Trainer) watch(ctx context.Context) (func(error) error, error) {
	if err := ctx.Err(); err != nil {
		return nil, ended(ctx)
	}
	if ctx.Done() == nil || t == nil || t.resource == nil {
		return func(err error) error { return err }, nil
	}
	s := t.switched
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.cancelToken.cancel()
		close(ran)
	})
	return func(err error) error {
		if stop() {
			return err
		}
		<-ran
		_ = s.cancelToken.reset()
		if s.thrown.Load() {
			_ = s.cancelToken.cancel()
		}
		if errors.Is(err, ErrCancelled) {
			return ended(ctx)
		}
		return err
	}, nil
}

// pass makes a call that ends early with the context's error when ctx is done.
func (t *Trainer) pass(ctx context.Context, a *arena, f func() *C.mmopt_error) error {
	if a.err != nil {
		return a.err
	}
	finish, err := t.watch(ctx)
	if err != nil {
		return err
	}
	err = take(f())
	if t.resource == nil {
		return err
	}
	// Before a panic of a callback goes on, the context must be let go.
	return t.callbacks.settle(finish(err))
}

// ZeroGrad forgets gradients that were accumulated since the last step.
func (t *Trainer) ZeroGrad() error {
	defer runtime.KeepAlive(t)
	return t.done(C.mmopt_trainer_zero_grad(t.c()))
}

func results(raw []C.mmopt_train_result) []TrainResult {
	all := make([]TrainResult, len(raw))
	for i, o := range raw {
		all[i] = TrainResult{
			float64(o.loss), uint64(o.n_correct), uint64(o.n_labels), float64(o.mutual_loss),
		}
	}
	return all
}

// ForwardBackward computes losses and gradients of one batch for every model. When ctx is done
// while it runs, it ends early with the context's error, and the batch does not count.
func (t *Trainer) ForwardBackward(ctx context.Context, batch *Batch) ([]TrainResult, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(batch)
	var a arena
	raw := make([]C.mmopt_train_result, max(t.nModels, 1))
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_forward_backward_batch(t.c(), batch.c(), &raw[0])
	})
	if err != nil {
		return nil, err
	}
	return results(raw), nil
}

// ForwardBackwardAll is ForwardBackward with the host's tensors of each model.
func (t *Trainer) ForwardBackwardAll(ctx context.Context, tensors [][]Tensor) ([]TrainResult, error) {
	defer runtime.KeepAlive(t)
	var a arena
	defer a.free()
	arrays, lengths, n := a.tensorsOfAll(tensors)
	raw := make([]C.mmopt_train_result, max(t.nModels, 1))
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_forward_backward_all(t.c(), arrays, lengths, n, &raw[0])
	})
	if err != nil {
		return nil, err
	}
	return results(raw), nil
}

// Prepare opens the session that training one model on tensors of these shapes needs, and runs
// nothing.
func (t *Trainer) Prepare(model int, tensors []Tensor) error {
	defer runtime.KeepAlive(t)
	var a arena
	defer a.free()
	m, all, n := a.size("model", model), a.tensors(tensors), C.size_t(len(tensors))
	return a.call(func() *C.mmopt_error { return C.mmopt_trainer_prepare(t.c(), m, all, n) })
}

// ForwardBackwardModel computes loss and gradients of one micro-batch of one model.
func (t *Trainer) ForwardBackwardModel(
	ctx context.Context, model int, tensors []Tensor,
) (TrainResult, error) {
	defer runtime.KeepAlive(t)
	var a arena
	defer a.free()
	all, n := a.tensors(tensors), C.size_t(len(tensors))
	raw := make([]C.mmopt_train_result, 1)
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_forward_backward(t.c(), C.size_t(model), all, n, &raw[0])
	})
	return results(raw)[0], err
}

// LogMetrics adds to the adaptive learning rates the losses that the host computed, one for
// each model.
func (t *Trainer) LogMetrics(losses []float64) error {
	defer runtime.KeepAlive(t)
	p := (*C.double)(unsafe.SliceData(losses))
	return t.done(C.mmopt_trainer_log_metrics(t.c(), p, C.size_t(len(losses))))
}

// Step updates all models from the gradients since the last step. It is not begun when ctx is done;
// once begun, it is done as a whole.
func (t *Trainer) Step(ctx context.Context) (StepReport, error) {
	defer runtime.KeepAlive(t)
	if err := ctx.Err(); err != nil {
		return StepReport{}, ended(ctx)
	}
	var r C.mmopt_step_report
	if err := t.done(C.mmopt_trainer_step(t.c(), &r)); err != nil {
		return StepReport{}, err
	}
	return report(&r), nil
}

// UseEMAWeights puts the running means (EMA) of all models' weights in the place of the weights, or
// the weights back. Means are kept with the option ema_decay, and with the teacher mean_teacher.
func (t *Trainer) UseEMAWeights(on bool) error {
	defer runtime.KeepAlive(t)
	return t.done(C.mmopt_trainer_use_ema_weights(t.c(), flag(on)))
}

// WithEMAWeights calls f with the running means in place; then, also after a panic, the weights are
// back.
func (t *Trainer) WithEMAWeights(f func() error) (err error) {
	if err := t.UseEMAWeights(true); err != nil {
		return err
	}
	defer func() {
		if back := t.UseEMAWeights(false); err == nil {
			err = back
		}
	}()
	return f()
}

// Evaluation is what a model made of a batch without being trained.
type Evaluation struct {
	// The loss is NaN without labels.
	TrainResult
	// Outputs of the model, by its names.
	Outputs []Tensor
}

// Output is the output of that name; false when there is none.
func (e *Evaluation) Output(name string) (Tensor, bool) {
	for _, t := range e.Outputs {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// Evaluate runs one model on its part of a batch, without dropout and gradients.
func (t *Trainer) Evaluate(ctx context.Context, model int, batch *Batch) (*Evaluation, error) {
	defer runtime.KeepAlive(batch)
	var tensors *C.mmopt_tensor
	var n C.size_t
	if err := take(C.mmopt_batch_tensors(batch.c(), C.size_t(model), &tensors, &n)); err != nil {
		return nil, err
	}
	var a arena
	return t.evaluate(ctx, &a, model, tensors, n)
}

// EvaluateTensors runs one model on the host's tensors.
func (t *Trainer) EvaluateTensors(
	ctx context.Context, model int, tensors []Tensor,
) (*Evaluation, error) {
	var a arena
	defer a.free()
	return t.evaluate(ctx, &a, model, a.tensors(tensors), C.size_t(len(tensors)))
}

func (t *Trainer) evaluate(
	ctx context.Context, a *arena, model int, tensors *C.mmopt_tensor, n C.size_t,
) (*Evaluation, error) {
	defer runtime.KeepAlive(t)
	var made *C.mmopt_evaluation
	err := t.pass(ctx, a, func() *C.mmopt_error {
		return C.mmopt_trainer_evaluate(t.c(), C.size_t(model), tensors, n, &made)
	})
	if err != nil {
		return nil, err
	}
	defer C.mmopt_evaluation_free(made)
	e := &Evaluation{TrainResult: TrainResult{
		Loss:    float64(C.mmopt_evaluation_loss(made)),
		Correct: uint64(C.mmopt_evaluation_n_correct(made)),
		Labels:  uint64(C.mmopt_evaluation_n_labels(made)),
	}}
	var outputs *C.mmopt_tensor
	var nOutputs C.size_t
	if err := take(C.mmopt_evaluation_tensors(made, &outputs, &nOutputs)); err != nil {
		return nil, err
	}
	e.Outputs, err = clonedAll(outputs, nOutputs)
	return e, err
}

// Steps taken, those before a resume included.
func (t *Trainer) Steps() uint64 {
	defer runtime.KeepAlive(t)
	return uint64(C.mmopt_trainer_n_steps(t.c()))
}

// Len is the number of models.
func (t *Trainer) Len() int {
	defer runtime.KeepAlive(t)
	return int(C.mmopt_trainer_n_models(t.c()))
}

// ModelName is the name of a model by its number; empty for any other number.
func (t *Trainer) ModelName(model int) string {
	defer runtime.KeepAlive(t)
	return C.GoString(C.mmopt_trainer_model_name(t.c(), C.size_t(model)))
}

// ModelIndex is the number of the model of that name.
func (t *Trainer) ModelIndex(name string) (int, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	n := a.text(name)
	var model C.size_t
	err := a.call(func() *C.mmopt_error { return C.mmopt_trainer_model_index(t.c(), n, &model) })
	return int(model), err
}

// Models are the numbers and names of the models.
func (t *Trainer) Models() iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := range t.Len() {
			if !yield(i, t.ModelName(i)) {
				return
			}
		}
	}
}

// Rates of one model, as of the last step.
func (t *Trainer) Rates(model int) (Rates, error) {
	defer runtime.KeepAlive(t)
	var r C.mmopt_rates
	if err := t.done(C.mmopt_trainer_rates(t.c(), C.size_t(model), &r)); err != nil {
		return Rates{}, err
	}
	return rates(&r), nil
}

// SetLearningRate sets the base rate of the coming steps.
func (t *Trainer) SetLearningRate(rate float64) error {
	defer runtime.KeepAlive(t)
	return t.done(C.mmopt_trainer_set_learning_rate(t.c(), C.double(rate)))
}

// SetModelWeight sets a model's weight for the coming steps.
func (t *Trainer) SetModelWeight(model int, weight float64) error {
	defer runtime.KeepAlive(t)
	return t.done(C.mmopt_trainer_set_model_weight(t.c(), C.size_t(model), C.double(weight)))
}

// ReportValidation reports one validation score per model, higher is better: accuracies, or negated
// losses. LRSchedulePlateau and the option weighting "validation" act on them.
func (t *Trainer) ReportValidation(scores []float64) error {
	defer runtime.KeepAlive(t)
	p := (*C.double)(unsafe.SliceData(scores))
	return t.done(C.mmopt_trainer_report_validation(t.c(), p, C.size_t(len(scores))))
}

// MetricsJSON is one JSON object: how much the models' gradients agree and how far their parameters
// are apart, as of the last step that the option metrics_every named.
func (t *Trainer) MetricsJSON() (string, error) {
	defer runtime.KeepAlive(t)
	var json *C.char
	if err := t.done(C.mmopt_trainer_metrics_json(t.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// Plan tells people which parameters of the models belong together and why, and what is done with
// their gradients and values.
func (t *Trainer) Plan() (string, error) {
	defer runtime.KeepAlive(t)
	var text *C.char
	if err := t.done(C.mmopt_trainer_plan(t.c(), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// PlanJSON is the plan as one JSON object.
func (t *Trainer) PlanJSON() (string, error) {
	defer runtime.KeepAlive(t)
	var json *C.char
	if err := t.done(C.mmopt_trainer_plan_json(t.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// MemoryReport says what training takes in memory, as one JSON object; mmopt_trainer_memory_report
// lists its keys. The tensors of each model give the shapes of a pass; without any, what passes take
// is left out.
func (t *Trainer) MemoryReport(tensors [][]Tensor) (string, error) {
	defer runtime.KeepAlive(t)
	var a arena
	defer a.free()
	arrays, lengths, n := a.tensorsOfAll(tensors)
	var json *C.char
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_memory_report(t.c(), arrays, lengths, n, &json)
	})
	if err != nil {
		return "", err
	}
	return takeText(json), nil
}

// MemoryReportBatch is MemoryReport with the shapes of a loader's batch.
func (t *Trainer) MemoryReportBatch(batch *Batch) (string, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(batch)
	var json *C.char
	if err := t.done(C.mmopt_trainer_memory_report_batch(t.c(), batch.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// tensorsOfAll is the arrays of several models, and their lengths.
func (a *arena) tensorsOfAll(tensors [][]Tensor) (**C.mmopt_tensor, *C.size_t, C.size_t) {
	n := len(tensors)
	arrays, lengths := array[*C.mmopt_tensor](a, n), array[C.size_t](a, n)
	for i, one := range tensors {
		unsafe.Slice(arrays, n)[i] = a.tensors(one)
		unsafe.Slice(lengths, n)[i] = C.size_t(len(one))
	}
	return arrays, lengths, C.size_t(n)
}

// SaveModel writes one model into a directory, in published form.
func (t *Trainer) SaveModel(model int, directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_save_model(t.c(), C.size_t(model), d)
	})
}

// SaveONNX writes one model's forward graph with its present weights, ready for inference.
func (t *Trainer) SaveONNX(model int, path string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	p := a.text(path)
	return a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_save_onnx(t.c(), C.size_t(model), p)
	})
}

// SaveCheckpoint writes everything that training depends on, with a text of the host's.
func (t *Trainer) SaveCheckpoint(directory, hostText string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	d, h := a.text(directory), a.text(hostText)
	return a.call(func() *C.mmopt_error { return C.mmopt_trainer_save_checkpoint(t.c(), d, h) })
}

// Resume goes to the newest whole checkpoint and gives back the host's text.
func (t *Trainer) Resume(directory string) (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	d := a.text(directory)
	var text *C.char
	err := a.call(func() *C.mmopt_error { return C.mmopt_trainer_resume(t.c(), d, &text) })
	if err != nil {
		return "", err
	}
	return takeText(text), nil
}

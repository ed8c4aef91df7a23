package mmopt

// #include <mmopt.h>
// #include <stdlib.h>
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Preset is a set of options to start from.
type Preset uint32

// The presets.
const (
	Joint       Preset = C.MMOPT_PRESET_DEFAULT
	Paper       Preset = C.MMOPT_PRESET_PAPER
	Independent Preset = C.MMOPT_PRESET_INDEPENDENT
)

// Model says what a trainer needs to know of one model.
type Model struct{ object }

func (m *Model) c() *C.mmopt_model { return (*C.mmopt_model)(m.pointer) }

func newModel(p *C.mmopt_model) *Model {
	m := &Model{}
	m.own(unsafe.Pointer(p), func(p unsafe.Pointer) { C.mmopt_model_free((*C.mmopt_model)(p)) })
	return m
}

// Sizes of a fresh model. Zero fields take the library's defaults.
type Sizes struct {
	Architecture          Architecture
	Layers, Hidden, Heads int
	// Dropout replaces the default when it is not nil.
	Dropout *float64
}

// ModelForCorpus makes a fresh model that fits a tokenizer and a corpus.
func ModelForCorpus(name string, sizes Sizes, tokenizer *Tokenizer, corpus *Corpus) (*Model, error) {
	var s C.mmopt_model_sizes
	C.mmopt_model_sizes_init(&s)
	if sizes.Architecture != 0 {
		s.architecture = C.uint32_t(sizes.Architecture)
	}
	for to, from := range map[*C.size_t]int{
		&s.layers: sizes.Layers, &s.hidden: sizes.Hidden, &s.heads: sizes.Heads,
	} {
		if from != 0 {
			*to = C.size_t(from)
		}
	}
	if sizes.Dropout != nil {
		s.dropout = C.double(*sizes.Dropout)
	}
	n, free := cstring(name)
	defer free()
	var made *C.mmopt_model
	err := take(C.mmopt_model_for_corpus(n, &s, tokenizer.c(), corpus.c(), &made))
	runtime.KeepAlive(tokenizer)
	runtime.KeepAlive(corpus)
	if err != nil {
		return nil, err
	}
	return newModel(made), nil
}

// ModelFromDirectory is a model of published form: config.json and model.safetensors.
func ModelFromDirectory(name, directory string) (*Model, error) {
	n, freeName := cstring(name)
	defer freeName()
	d, freeDirectory := cstring(directory)
	defer freeDirectory()
	var made *C.mmopt_model
	if err := take(C.mmopt_model_from_directory(n, d, &made)); err != nil {
		return nil, err
	}
	return newModel(made), nil
}

// SetWeight sets the weight among the models; only ratios matter.
func (m *Model) SetWeight(weight float64) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_weight(m.c(), C.double(weight)))
}

// SetSeed sets the seed of fresh weights and of dropout.
func (m *Model) SetSeed(seed uint64) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_seed(m.c(), C.uint64_t(seed)))
}

// Freeze leaves parameters as they are whose name matches the pattern (* and ?).
func (m *Model) Freeze(pattern string) error {
	p, free := cstring(pattern)
	defer free()
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_freeze(m.c(), p))
}

// Label is the name of a class.
func (m *Model) Label(label int) (string, error) {
	defer runtime.KeepAlive(m)
	var name *C.char
	if err := take(C.mmopt_model_label(m.c(), C.size_t(label), &name)); err != nil {
		return "", err
	}
	return takeText(name), nil
}

// TrainerOptions say how models are trained together.
type TrainerOptions struct {
	Preset Preset
	// LearningRate is the base rate; 0 takes the preset's.
	LearningRate float64
	// Threads in all; 0 takes every core.
	Threads int
	// WarmupSteps rise in a straight line; with TotalSteps the rate then falls to zero.
	WarmupSteps, TotalSteps uint64
	// Optimizer is a JSON object with further options, or empty.
	Optimizer string
}

// Trainer holds several models and the optimizer that trains them together. It belongs to one
// goroutine at a time.
type Trainer struct {
	object
	nModels int
}

func (t *Trainer) c() *C.mmopt_trainer { return (*C.mmopt_trainer)(t.pointer) }

// NewTrainer reads the models and plans what they share. The models may be closed afterwards.
func NewTrainer(models []*Model, options TrainerOptions) (*Trainer, error) {
	var o C.mmopt_trainer_options
	C.mmopt_trainer_options_init(&o, C.uint32_t(options.Preset))
	if options.LearningRate != 0 {
		o.learning_rate = C.double(options.LearningRate)
	}
	o.n_threads = C.size_t(options.Threads)
	if options.TotalSteps != 0 {
		o.schedule = C.MMOPT_SCHEDULE_LINEAR
		o.total_steps = C.uint64_t(options.TotalSteps)
		o.warmup_steps = C.uint64_t(options.WarmupSteps)
	}
	json, freeJSON := optional(options.Optimizer)
	defer freeJSON()
	o.optimizer_json = json
	array := (**C.mmopt_model)(C.calloc(C.size_t(len(models)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(array))
	for i, m := range models {
		unsafe.Slice(array, len(models))[i] = m.c()
	}
	var made *C.mmopt_trainer
	err := take(C.mmopt_trainer_create(&o, array, C.size_t(len(models)), &made))
	runtime.KeepAlive(models)
	if err != nil {
		return nil, err
	}
	t := &Trainer{nModels: len(models)}
	t.own(unsafe.Pointer(made), func(p unsafe.Pointer) { C.mmopt_trainer_free((*C.mmopt_trainer)(p)) })
	return t, nil
}

// Outcome is what a forward and backward pass of one model gave.
type Outcome struct {
	Loss            float64
	Correct, Labels uint64
}

// Report is what a step did.
type Report struct {
	Step             uint64
	Updated, Skipped int
	Shared, Synced   bool
}

// watch cancels running passes when ctx is done. The result stops watching, and turns a
// cancellation of the library into that of the context.
func (t *Trainer) watch(ctx context.Context) (func(error) error, error) {
	if t.pointer == nil {
		return nil, closed("the trainer")
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if ctx.Done() == nil {
		return func(err error) error { return err }, nil
	}
	var canceller *C.mmopt_canceller
	if err := take(C.mmopt_trainer_canceller(t.c(), &canceller)); err != nil {
		return nil, err
	}
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = take(C.mmopt_canceller_cancel(canceller))
		close(ran)
	})
	return func(err error) error {
		if !stop() {
			<-ran
			_ = take(C.mmopt_canceller_reset(canceller))
		}
		C.mmopt_canceller_free(canceller)
		if e, ok := err.(*Error); ok && e.Code == Cancelled && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}, nil
}

// ZeroGrad forgets gradients that were accumulated since the last step.
func (t *Trainer) ZeroGrad() error {
	defer runtime.KeepAlive(t)
	return take(C.mmopt_trainer_zero_grad(t.c()))
}

// ForwardBackward computes losses and gradients of one batch for every model. When ctx is done
// while it runs, it ends early with the context's error, and the batch does not count.
func (t *Trainer) ForwardBackward(ctx context.Context, batch *Batch) ([]Outcome, error) {
	finish, err := t.watch(ctx)
	if err != nil {
		return nil, err
	}
	raw := make([]C.mmopt_outcome, t.nModels)
	err = take(C.mmopt_trainer_forward_backward_batch(t.c(), batch.c(), &raw[0]))
	runtime.KeepAlive(batch)
	runtime.KeepAlive(t)
	if err = finish(err); err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, len(raw))
	for i, o := range raw {
		outcomes[i] = Outcome{float64(o.loss), uint64(o.n_correct), uint64(o.n_labels)}
	}
	return outcomes, nil
}

// Step updates all models from the gradients since the last step.
func (t *Trainer) Step() (Report, error) {
	defer runtime.KeepAlive(t)
	var r C.mmopt_step_report
	if err := take(C.mmopt_trainer_step(t.c(), &r)); err != nil {
		return Report{}, err
	}
	return Report{
		Step: uint64(r.step), Updated: int(r.n_updated), Skipped: int(r.n_skipped),
		Shared: r.shared != 0, Synced: r.synced != 0,
	}, nil
}

// Evaluation is what a model made of a batch without being trained.
type Evaluation struct {
	Outcome
	// Logits are the rows of the first output.
	Logits [][]float32
}

// Evaluate runs one model on its part of a batch. Without labels the outcome's loss is NaN.
func (t *Trainer) Evaluate(ctx context.Context, model int, batch *Batch) (*Evaluation, error) {
	finish, err := t.watch(ctx)
	if err != nil {
		return nil, err
	}
	var tensors *C.mmopt_tensor
	var n C.size_t
	var made *C.mmopt_evaluation
	err = take(C.mmopt_batch_tensors(batch.c(), C.size_t(model), &tensors, &n))
	if err == nil {
		err = take(C.mmopt_trainer_evaluate(t.c(), C.size_t(model), tensors, n, &made))
	}
	runtime.KeepAlive(batch)
	runtime.KeepAlive(t)
	if err = finish(err); err != nil {
		return nil, err
	}
	defer C.mmopt_evaluation_free(made)
	e := &Evaluation{Outcome: Outcome{
		float64(C.mmopt_evaluation_loss(made)),
		uint64(C.mmopt_evaluation_n_correct(made)),
		uint64(C.mmopt_evaluation_n_labels(made)),
	}}
	if err := take(C.mmopt_evaluation_tensors(made, &tensors, &n)); err != nil {
		return nil, err
	}
	if n > 0 && tensors.n_bytes > 0 {
		e.Logits = rows(tensors)
	}
	return e, nil
}

// rows copies a float tensor as rows along its last dimension.
func rows(t *C.mmopt_tensor) [][]float32 {
	all := unsafe.Slice((*float32)(t.data), int(t.n_bytes)/4)
	width := len(all)
	if t.n_dims > 0 {
		width = int(unsafe.Slice(t.shape, int(t.n_dims))[t.n_dims-1])
	}
	var out [][]float32
	for ; len(all) >= width && width > 0; all = all[width:] {
		out = append(out, append([]float32(nil), all[:width]...))
	}
	return out
}

// Plan tells what is shared with what, and why.
func (t *Trainer) Plan() (string, error) {
	defer runtime.KeepAlive(t)
	var text *C.char
	if err := take(C.mmopt_trainer_plan(t.c(), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// SaveModel writes one model into a directory, in published form.
func (t *Trainer) SaveModel(model int, directory string) error {
	p, free := cstring(directory)
	defer free()
	defer runtime.KeepAlive(t)
	return take(C.mmopt_trainer_save_model(t.c(), C.size_t(model), p))
}

// Checkpoint writes everything that training depends on, with a text of the host's.
func (t *Trainer) Checkpoint(directory, hostText string) error {
	p, free := cstring(directory)
	defer free()
	h, freeText := cstring(hostText)
	defer freeText()
	defer runtime.KeepAlive(t)
	return take(C.mmopt_trainer_checkpoint(t.c(), p, h))
}

// Resume goes to the last checkpoint and gives back the host's text.
func (t *Trainer) Resume(directory string) (string, error) {
	p, free := cstring(directory)
	defer free()
	defer runtime.KeepAlive(t)
	var text *C.char
	if err := take(C.mmopt_trainer_resume(t.c(), p, &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

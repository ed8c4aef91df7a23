package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// SharedInitializers is what is done with a tensor that an exporter put in the place of several
// equal parameters.
type SharedInitializers uint32

// The ways.
const (
	// ReportSharedInitializers trains the tensor as one parameter, and says so in the report.
	ReportSharedInitializers SharedInitializers = C.MMOPT_SHARED_INITIALIZERS_REPORT
	// SplitSharedInitializers gives each use a copy.
	SplitSharedInitializers SharedInitializers = C.MMOPT_SHARED_INITIALIZERS_SPLIT
)

// DuplicateWeights is what is done with two equal matrices, possibly transposed.
type DuplicateWeights uint32

// The ways.
const (
	// ReportDuplicateWeights trains both, and says so in the report.
	ReportDuplicateWeights DuplicateWeights = C.MMOPT_DUPLICATE_WEIGHTS_REPORT
	// TieEmbeddings ties them where one is an embedding table.
	TieEmbeddings DuplicateWeights = C.MMOPT_DUPLICATE_WEIGHTS_TIE_EMBEDDINGS
	// TieAll ties them wherever they are used.
	TieAll DuplicateWeights = C.MMOPT_DUPLICATE_WEIGHTS_TIE_ALL
)

// SetSharedInitializers sets what is done with shared initializers of an ONNX graph. Default
// ReportSharedInitializers.
func (m *Model) SetSharedInitializers(action SharedInitializers) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_shared_initializers(m.c(), C.uint32_t(action)))
}

// SetDuplicateWeights sets what is done with equal matrices of an ONNX graph. Default TieEmbeddings.
func (m *Model) SetDuplicateWeights(action DuplicateWeights) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_duplicate_weights(m.c(), C.uint32_t(action)))
}

// SetRestoreNames says whether names that an exporter invented give way to those of the state
// dict, where the file tells them. Default true.
func (m *Model) SetRestoreNames(restore bool) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_restore_names(m.c(), flag(restore)))
}

// FreezeRow leaves one row of the matching parameters as it is, for example padding's.
func (m *Model) FreezeRow(pattern string, row int) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	p, r := a.text(pattern), a.size("row", row)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_freeze_row(m.c(), p, r) })
}

// Report tells people what a trainer would find in this model and do about it.
func (m *Model) Report() (string, error) {
	defer runtime.KeepAlive(m)
	var text *C.char
	if err := take(C.mmopt_model_report(m.c(), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// ReportJSON is the report as one JSON object.
func (m *Model) ReportJSON() (string, error) {
	defer runtime.KeepAlive(m)
	var json *C.char
	if err := take(C.mmopt_model_report_json(m.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// PrecomputedGradients names the outputs of an ONNX graph that computes its own gradients.
type PrecomputedGradients struct {
	// Loss is the output that holds the loss.
	Loss string
	// Gradients are the parameters to train, each with the output that holds its gradient.
	Gradients []GradientOutput
	// Logits are outputs that Evaluate gives.
	Logits []string
	// Weights is a safetensors file with the values of parameters that are inputs; empty: all are
	// initializers.
	Weights string
}

// GradientOutput is a parameter and the output that holds its gradient.
type GradientOutput struct{ Parameter, Output string }

// SetPrecomputedGradients says that the model's ONNX graph computes its own gradients, so that it
// needs no loss.
func (m *Model) SetPrecomputedGradients(graph PrecomputedGradients) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	o := array[C.mmopt_precomputed_gradient_options](&a, 1)
	C.mmopt_precomputed_gradient_options_init(o)
	n := len(graph.Gradients)
	pairs := array[C.mmopt_gradient_output](&a, n)
	for i, g := range graph.Gradients {
		pair := &unsafe.Slice(pairs, n)[i]
		pair.parameter, pair.output = a.text(g.Parameter), a.text(g.Output)
	}
	o.loss = a.text(graph.Loss)
	o.gradients, o.n_gradients = pairs, C.size_t(n)
	o.logits, o.n_logits = a.texts(graph.Logits), C.size_t(len(graph.Logits))
	o.weights = a.optional(graph.Weights)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_set_precomputed_gradients(m.c(), o) })
}

// ModelReport tells people what was found in a model's graph and done about it.
func (t *Trainer) ModelReport(model int) (string, error) {
	defer runtime.KeepAlive(t)
	var text *C.char
	if err := t.done(C.mmopt_trainer_model_report(t.c(), C.size_t(model), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// ModelReportJSON is that as one JSON object.
func (t *Trainer) ModelReportJSON(model int) (string, error) {
	defer runtime.KeepAlive(t)
	var json *C.char
	if err := t.done(C.mmopt_trainer_model_report_json(t.c(), C.size_t(model), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// Finding is where a pass first goes non-finite.
type Finding struct {
	// Text for people, and the same as one JSON object.
	Text, JSON string
}

// FindNonFinite finds where a training pass of one model over a batch first goes non-finite; nil
// when it does not.
func (t *Trainer) FindNonFinite(ctx context.Context, model int, tensors []Tensor) (*Finding, error) {
	defer runtime.KeepAlive(t)
	var a arena
	defer a.free()
	all, n := a.tensors(tensors), C.size_t(len(tensors))
	var text, json *C.char
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_find_non_finite(t.c(), C.size_t(model), all, n, &text, &json)
	})
	if err != nil || json == nil {
		return nil, err
	}
	return &Finding{takeText(text), takeText(json)}, nil
}

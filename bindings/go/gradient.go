package mmopt

// #include "callbacks.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// GradientAction is what a gradient callback has decided about one parameter.
type GradientAction uint32

// The decisions.
const (
	// UseGradient lets the step use the gradient as it is now.
	UseGradient GradientAction = C.MMOPT_GRADIENT_ACTION_USE
	// GradientHandled: the host has handled this parameter; the step leaves it alone.
	GradientHandled GradientAction = C.MMOPT_GRADIENT_ACTION_HANDLED
	// StopStep lets the step fail with ErrCancelled.
	StopStep GradientAction = C.MMOPT_GRADIENT_ACTION_STOP
)

// GradientView is one parameter of a step that is about to be taken. Value and Gradient lie in the
// memory of the trainer, or of an optimizer's host: they may be written, and are valid during the
// callback. Of an optimizer's parameters that are not dense float32 they are copies: narrow
// gradients are rounded back where they were changed, changes of a gradient with strides count for
// this step only, and changed values reach the host's memory when the step succeeds.
type GradientView struct {
	Model, Parameter int
	ModelName, Name  string
	Shape            []int64
	Value, Gradient  []float32
	// Scale: the step uses Scale times the gradient.
	Scale float64
	// Step is its number, from 1.
	Step uint64
}

//export mmoptGoGradient
func mmoptGoGradient(handle C.uintptr_t, g *C.mmopt_gradient_view) C.uint32_t {
	c := callbacksOf(handle)
	action := StopStep
	c.run(func() {
		n := int(g.n_elements)
		action = c.gradient(GradientView{
			Model: int(g.model), Parameter: int(g.parameter),
			ModelName: C.GoString(g.model_name), Name: C.GoString(g.name),
			Shape:    copied((*int64)(g.shape), g.n_dims),
			Value:    unsafe.Slice((*float32)(g.value), n),
			Gradient: unsafe.Slice((*float32)(g.gradient), n),
			Scale:    float64(g.scale), Step: uint64(g.step),
		})
	})
	return C.uint32_t(action)
}

// SetGradientCallback shows f each gradient between backward pass and step, so that a filter or an
// optimizer of the host's own can be put in; nil ends that. f runs on a goroutine of
// its own while the step waits, and
// must not use the trainer. Its panic fails the step, and goes on when the step returns.
func (t *Trainer) SetGradientCallback(f func(GradientView) GradientAction) error {
	defer runtime.KeepAlive(t)
	return t.done(replace(&t.callbacks.gradient, f, func() *C.mmopt_error {
		return C.mmopt_go_set_gradient_callback(t.c(), t.handleIf(f != nil))
	}))
}

// ValueDLPack is the value as a DLManagedTensorVersioned that points into the trainer's memory and
// may outlive it; FreeDLPack ends it. Without writable it is flagged as read-only.
func (p Parameter) ValueDLPack(writable bool) (unsafe.Pointer, error) {
	t := p.trainer
	defer runtime.KeepAlive(t)
	var managed unsafe.Pointer
	m, i := C.size_t(p.Model), C.size_t(p.Index)
	err := t.done(C.mmopt_trainer_parameter_dlpack(t.c(), m, i, flag(writable), &managed))
	if err != nil {
		return nil, err
	}
	return managed, nil
}

// GradientDLPack is that of the parameter's gradient.
func (p Parameter) GradientDLPack(writable bool) (unsafe.Pointer, error) {
	t := p.trainer
	defer runtime.KeepAlive(t)
	var managed unsafe.Pointer
	m, i := C.size_t(p.Model), C.size_t(p.Index)
	err := t.done(C.mmopt_trainer_gradient_dlpack(t.c(), m, i, flag(writable), &managed))
	if err != nil {
		return nil, err
	}
	return managed, nil
}

package mmopt

// #include <mmopt.h>
import "C"

import (
	"iter"
	"runtime"
	"unsafe"
)

// Parameter is one parameter of a model inside a trainer.
type Parameter struct {
	// Model and Index are its numbers.
	Model, Index int
	Name         string
	Shape        []int64
	// Trainable: the optimizer changes it.
	Trainable bool
	trainer   *Trainer
}

// Parameters are those of one model, in graph order. An error ends the iteration.
func (t *Trainer) Parameters(model int) iter.Seq2[Parameter, error] {
	return func(yield func(Parameter, error) bool) {
		n := int(C.mmopt_trainer_n_parameters(t.c(), C.size_t(model)))
		runtime.KeepAlive(t)
		for i := range n {
			p, err := t.parameter(model, i)
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

func (t *Trainer) parameter(model, index int) (Parameter, error) {
	defer runtime.KeepAlive(t)
	var raw C.mmopt_tensor
	var trainable C.uint32_t
	m, i := C.size_t(model), C.size_t(index)
	if err := t.done(C.mmopt_trainer_parameter(t.c(), m, i, &raw, &trainable)); err != nil {
		return Parameter{}, err
	}
	p := Parameter{model, index, C.GoString(raw.name), nil, trainable != 0, t}
	if raw.n_dims > 0 {
		p.Shape = copied((*int64)(raw.shape), raw.n_dims)
	}
	return p, nil
}

// Parameter is a model's parameter of that name.
func (t *Trainer) Parameter(model int, name string) (Parameter, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	n := a.text(name)
	var index C.size_t
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_parameter_index(t.c(), C.size_t(model), n, &index)
	})
	if err != nil {
		return Parameter{}, err
	}
	return t.parameter(model, int(index))
}

// Value is a copy of the parameter's value.
func (p Parameter) Value() (Tensor, error) { return p.read(false, cloned) }

// Gradient is a copy of the parameter's gradient as the last backward pass left it.
func (p Parameter) Gradient() (Tensor, error) { return p.read(true, cloned) }

// View calls f with the parameter's value where it lies in the trainer's memory. f must not keep
// or change it.
func (p Parameter) View(f func(Tensor)) error {
	_, err := p.read(false, func(raw *C.mmopt_tensor) (Tensor, error) { return seen(raw, f) })
	return err
}

// ViewGradient calls f with the parameter's gradient, as View does.
func (p Parameter) ViewGradient(f func(Tensor)) error {
	_, err := p.read(true, func(raw *C.mmopt_tensor) (Tensor, error) { return seen(raw, f) })
	return err
}

func seen(raw *C.mmopt_tensor, f func(Tensor)) (Tensor, error) {
	t, err := view(raw)
	if err == nil {
		f(t)
	}
	return t, err
}

// read runs f on a view of the value or the gradient while the trainer is alive.
func (p Parameter) read(gradient bool, f func(*C.mmopt_tensor) (Tensor, error)) (Tensor, error) {
	t := p.trainer
	defer runtime.KeepAlive(t)
	var raw C.mmopt_tensor
	m, i := C.size_t(p.Model), C.size_t(p.Index)
	var failed *C.mmopt_error
	if gradient {
		failed = C.mmopt_trainer_gradient(t.c(), m, i, &raw)
	} else {
		failed = C.mmopt_trainer_parameter(t.c(), m, i, &raw, nil)
	}
	if err := t.done(failed); err != nil {
		return Tensor{}, err
	}
	return f(&raw)
}

// SetValue replaces the parameter's value by as many elements.
func (p Parameter) SetValue(elements []float32) error {
	t := p.trainer
	defer runtime.KeepAlive(t)
	data, size := bytesOf(elements)
	m, i := C.size_t(p.Model), C.size_t(p.Index)
	return t.done(C.mmopt_trainer_set_parameter(t.c(), m, i, data, size))
}

// SetGradient replaces the gradient between the backward pass and the step.
func (p Parameter) SetGradient(elements []float32) error {
	t := p.trainer
	defer runtime.KeepAlive(t)
	data, size := bytesOf(elements)
	m, i := C.size_t(p.Model), C.size_t(p.Index)
	return t.done(C.mmopt_trainer_set_gradient(t.c(), m, i, data, size))
}

func bytesOf(elements []float32) (unsafe.Pointer, C.size_t) {
	return unsafe.Pointer(unsafe.SliceData(elements)), C.size_t(4 * len(elements))
}

// SetTrainable freezes or trains the parameters that match both patterns (* and ?), from the next
// step on. It gives how many changed.
func (t *Trainer) SetTrainable(modelPattern, pattern string, trainable bool) (int, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	m, p := a.text(modelPattern), a.text(pattern)
	var changed C.size_t
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_set_trainable(t.c(), m, p, flag(trainable), &changed)
	})
	return int(changed), err
}

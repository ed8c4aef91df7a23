package mmopt

// #include "callbacks.h"
import "C"

import (
	"fmt"
	"runtime"
	"runtime/cgo"
	"slices"
	"unsafe"
)

// HostParameter is one parameter of the host.
type HostParameter struct {
	// Name is unique within its model; the published name where there is one, as it decides the
	// role.
	Name  string
	Shape []int64
	// Value is a []float32, BF16 or F16 and updated in place. It stays pinned until the optimizer is
	// closed.
	Value any
	// Gradient is a []float32, BF16 or F16, or nil when there is none. It stays pinned too.
	Gradient any
	// Strides and GradientStrides are in elements, one for each dimension and not negative, from
	// the slice's first element on; nil: dense and row-major.
	Strides, GradientStrides []int64
	// Frozen: the optimizer leaves it as it is.
	Frozen bool
	// Role is empty, or a JSON object that overrides the role: role, part, block, layout.
	Role string
}

// HostModel is one model of the host.
type HostModel struct {
	Name       string
	Parameters []HostParameter
	// Weight among the models; only ratios matter; 0 stands for 1.
	Weight float64
	// Architecture is the published model_type, for reports, or empty.
	Architecture string
	// Vocabulary and Task: token tables and heads share only between models where these are equal
	// and not empty.
	Vocabulary, Task string
}

// Optimizer updates the parameters of several models together, in the host's memory. It belongs to
// one goroutine at a time.
//
// A callback that refers to its optimizer keeps it reachable: such an optimizer must be closed.
type Optimizer struct {
	object
	callbacks *callbacks
	handle    cgo.Handle
	pinned    *runtime.Pinner
	gradients *gradientPins
	// The shapes and element types of values, by model and parameter.
	shapes [][][]int64
	dtypes [][]C.uint32_t
}

func (o *Optimizer) c() *C.mmopt_optimizer {
	if o == nil {
		return nil
	}
	return (*C.mmopt_optimizer)(o.address())
}

func freeOptimizer(p unsafe.Pointer) { C.mmopt_optimizer_free((*C.mmopt_optimizer)(p)) }

// span is the number of elements from the first to the last of a shape; -1 for one that is none.
func span(shape, strides []int64) int64 {
	if strides != nil && len(strides) != len(shape) {
		return -1
	}
	n, last := int64(1), int64(0)
	for i, d := range shape {
		if d < 0 || (strides != nil && strides[i] < 0) {
			return -1
		}
		n *= d
		if strides != nil {
			last += (d - 1) * strides[i]
		}
	}
	if n == 0 || strides == nil {
		return n
	}
	return last + 1
}

// place is the address and element type of values or a gradient, pinned by p. Dense ones must have
// as many elements as the shape, others at least reach to the last.
func place(p *runtime.Pinner, of any, shape, strides []int64) (unsafe.Pointer, C.uint32_t, error) {
	var address unsafe.Pointer
	var length int
	var dtype C.uint32_t = C.MMOPT_DTYPE_F32
	switch g := of.(type) {
	case nil:
		return nil, dtype, nil
	case []float32:
		address, length = unsafe.Pointer(unsafe.SliceData(g)), len(g)
	case BF16:
		address, length, dtype = unsafe.Pointer(unsafe.SliceData(g)), len(g), C.MMOPT_DTYPE_BF16
	case F16:
		address, length, dtype = unsafe.Pointer(unsafe.SliceData(g)), len(g), C.MMOPT_DTYPE_F16
	default:
		return nil, dtype, invalid("elements of type %T", of)
	}
	needed := span(shape, strides)
	if needed < 0 || int64(length) < needed || (strides == nil && int64(length) != needed) {
		return nil, dtype, &Error{Shape, fmt.Sprintf(
			"%d elements for shape %v and strides %v", length, shape, strides)}
	}
	if length > 0 {
		p.Pin(address)
	}
	return address, dtype, nil
}

// numbers is a C copy of numbers, NULL for none.
func (a *arena) numbers(numbers []int64) *C.int64_t {
	all := array[C.int64_t](a, len(numbers))
	copy(unsafe.Slice((*int64)(all), len(numbers)), numbers)
	return all
}

// gradientPins hold each parameter's gradient; they change with it.
type gradientPins struct{ pins [][]runtime.Pinner }

func (g *gradientPins) unpin() {
	for i := range g.pins {
		for j := range g.pins[i] {
			g.pins[i][j].Unpin()
		}
	}
}

func (a *arena) hostParameter(
	raw *C.mmopt_parameter, p *HostParameter, pinned, gradient *runtime.Pinner,
) {
	raw.name = a.text(p.Name)
	raw.shape, raw.n_dims = a.numbers(p.Shape), C.size_t(len(p.Shape))
	layout := array[C.mmopt_parameter_layout](a, 1)
	C.mmopt_parameter_layout_init(layout)
	layout.strides, layout.gradient_strides = a.numbers(p.Strides), a.numbers(p.GradientStrides)
	raw.layout = layout
	var errors [2]error
	raw.data, layout.dtype, errors[0] = place(pinned, p.Value, p.Shape, p.Strides)
	raw.gradient, raw.gradient_dtype, errors[1] =
		place(gradient, p.Gradient, p.Shape, p.GradientStrides)
	for _, err := range errors {
		if err != nil {
			a.fail(fmt.Errorf("parameter '%s': %w", p.Name, err))
		}
	}
	raw.trainable = flag(!p.Frozen)
	raw.role_json = a.optional(p.Role)
}

func (a *arena) hostModel(
	raw *C.mmopt_model_parameters, m *HostModel, pinned *runtime.Pinner, gradients []runtime.Pinner,
) {
	raw.name = a.text(m.Name)
	n := len(m.Parameters)
	parameters := array[C.mmopt_parameter](a, n)
	for i := range m.Parameters {
		a.hostParameter(&unsafe.Slice(parameters, n)[i], &m.Parameters[i], pinned, &gradients[i])
	}
	raw.parameters, raw.n_parameters = parameters, C.size_t(n)
	raw.weight = C.double(m.Weight)
	if m.Weight == 0 {
		raw.weight = 1
	}
	raw.architecture = a.optional(m.Architecture)
	raw.vocabulary = a.optional(m.Vocabulary)
	raw.task = a.optional(m.Task)
	raw.stable_gradients = 1 // pinned
}

// NewOptimizer plans what models share, and takes hold of their values and gradients, which must
// be apart from one another. nil options: the defaults.
func NewOptimizer(models []HostModel, options *TrainerOptions) (*Optimizer, error) {
	var a arena
	defer a.free()
	pinned := &runtime.Pinner{}
	o, raw := options.c(&a), array[C.mmopt_model_parameters](&a, len(models))
	gradients := &gradientPins{}
	result := &Optimizer{callbacks: &callbacks{}, pinned: pinned, gradients: gradients}
	result.shapes = make([][][]int64, len(models))
	result.dtypes = make([][]C.uint32_t, len(models))
	for i := range models {
		one := &unsafe.Slice(raw, len(models))[i]
		gradients.pins = append(gradients.pins, make([]runtime.Pinner, len(models[i].Parameters)))
		a.hostModel(one, &models[i], pinned, gradients.pins[i])
		for j, p := range models[i].Parameters {
			result.shapes[i] = append(result.shapes[i], slices.Clone(p.Shape))
			layout := unsafe.Slice(one.parameters, len(models[i].Parameters))[j].layout
			result.dtypes[i] = append(result.dtypes[i], layout.dtype)
		}
	}
	var made *C.mmopt_optimizer
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_optimizer_create(o, raw, C.size_t(len(models)), &made)
	})
	if err != nil {
		pinned.Unpin()
		gradients.unpin()
		return nil, err
	}
	result.handle = cgo.NewHandle(result.callbacks)
	result.own(unsafe.Pointer(made), freeOptimizer, pinned.Unpin, gradients.unpin, result.handle.Delete)
	return result, nil
}

// done turns the error of a call into Go's, and goes on with what its callbacks left.
func (o *Optimizer) done(raw *C.mmopt_error) error {
	err := take(raw)
	if o == nil || o.resource == nil {
		return err
	}
	return o.callbacks.settle(err)
}

func (o *Optimizer) handleIf(wanted bool) C.uintptr_t {
	if !wanted {
		return 0
	}
	return C.uintptr_t(o.handle)
}

// SetGradientCallback shows f each gradient of a step before anything looks at it, so that a filter
// or an update of the host's own can be put in; nil ends that. f runs on a goroutine of
// its own while the step waits,
// and must not use the optimizer. Its panic fails the step, and goes on when the step returns.
func (o *Optimizer) SetGradientCallback(f func(GradientView) GradientAction) error {
	defer runtime.KeepAlive(o)
	return o.done(replace(&o.callbacks.gradient, f, func() *C.mmopt_error {
		return C.mmopt_go_optimizer_set_gradient_callback(o.c(), o.handleIf(f != nil))
	}))
}

// SetRateCallback lets f decide each model's learning rate at each step, counted from 1; rate is
// what the schedule and the losses say; nil ends that. A result that is negative or not finite
// fails the step, and so does a panic, which goes on when the step returns.
func (o *Optimizer) SetRateCallback(f func(model string, step uint64, rate float64) float64) error {
	defer runtime.KeepAlive(o)
	return o.done(replace(&o.callbacks.rate, f, func() *C.mmopt_error {
		return C.mmopt_go_optimizer_set_rate_callback(o.c(), o.handleIf(f != nil))
	}))
}

// Len is the number of models.
func (o *Optimizer) Len() int {
	defer runtime.KeepAlive(o)
	return int(C.mmopt_optimizer_n_models(o.c()))
}

// SetGradient gives a parameter another gradient (nil: none) for the coming steps; it stays pinned
// until another takes its place or the optimizer is closed. Parameters count from 0 in the order
// they were given.
func (o *Optimizer) SetGradient(model, parameter int, to any) error {
	defer runtime.KeepAlive(o)
	return o.setGradient(model, parameter, to, nil, func(address unsafe.Pointer, dtype C.uint32_t) error {
		m, p := C.size_t(model), C.size_t(parameter)
		return take(C.mmopt_optimizer_set_gradient(o.c(), m, p, address, dtype))
	})
}

// setGradient pins a gradient, lets the call take it, and unpins the one before it; after an error
// it is as before.
func (o *Optimizer) setGradient(
	model, parameter int, to any, strides []int64, call func(unsafe.Pointer, C.uint32_t) error,
) error {
	var pinned runtime.Pinner
	address, dtype, err := o.place(&pinned, model, parameter, to, strides)
	if err != nil {
		return err
	}
	if err := call(address, dtype); err != nil {
		pinned.Unpin()
		return err
	}
	before := &o.gradients.pins[model][parameter]
	before.Unpin()
	*before = pinned
	return nil
}

// SetData gives a parameter other memory for its values, of the same type; moments stay. It stays
// pinned until the optimizer is closed, as the old memory does. nil strides: dense and row-major.
func (o *Optimizer) SetData(model, parameter int, to any, strides []int64) error {
	address, dtype, err := o.place(o.pinned, model, parameter, to, strides)
	if err != nil {
		return err
	}
	if dtype != o.dtypes[model][parameter] {
		return invalid("values of another type than before")
	}
	var a arena
	defer a.free()
	defer runtime.KeepAlive(o)
	m, p := C.size_t(model), C.size_t(parameter)
	s, n := a.numbers(strides), C.size_t(len(strides))
	return a.call(func() *C.mmopt_error {
		return C.mmopt_optimizer_set_data(o.c(), m, p, address, s, n)
	})
}

// SetGradientStrided is SetGradient with strides as in HostParameter.
func (o *Optimizer) SetGradientStrided(model, parameter int, to any, strides []int64) error {
	defer runtime.KeepAlive(o)
	var a arena
	defer a.free()
	m, p := C.size_t(model), C.size_t(parameter)
	s, n := a.numbers(strides), C.size_t(len(strides))
	return o.setGradient(model, parameter, to, strides,
		func(address unsafe.Pointer, dtype C.uint32_t) error {
			return a.call(func() *C.mmopt_error {
				return C.mmopt_optimizer_set_gradient_strided(o.c(), m, p, address, dtype, s, n)
			})
		})
}

func (o *Optimizer) place(
	pinned *runtime.Pinner, model, parameter int, of any, strides []int64,
) (unsafe.Pointer, C.uint32_t, error) {
	if model < 0 || model >= len(o.shapes) || parameter < 0 || parameter >= len(o.shapes[model]) {
		return nil, 0, invalid("there is no parameter %d of model %d", parameter, model)
	}
	return place(pinned, of, o.shapes[model][parameter], strides)
}

// SetGradientDLPack hands over a DLManagedTensorVersioned as the gradient of the coming steps. On an
// error it stays the caller's.
func (o *Optimizer) SetGradientDLPack(model, parameter int, managed unsafe.Pointer) error {
	defer runtime.KeepAlive(o)
	m, p := C.size_t(model), C.size_t(parameter)
	if err := take(C.mmopt_optimizer_set_gradient_dlpack(o.c(), m, p, managed)); err != nil {
		return err
	}
	o.gradients.pins[model][parameter].Unpin()
	return nil
}

// KeepDLPack hands over a DLManagedTensorVersioned whose memory the optimizer uses; it goes when the
// optimizer goes. On an error it stays the caller's.
func (o *Optimizer) KeepDLPack(managed unsafe.Pointer) error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_keep_dlpack(o.c(), managed))
}

// ZeroGrad forgets micro-batches that were accumulated since the last step.
func (o *Optimizer) ZeroGrad() error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_zero_grad(o.c()))
}

// Accumulate tells that the gradients of one model's micro-batch lie in its memory, and its loss.
func (o *Optimizer) Accumulate(model int, loss float64) error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_accumulate(o.c(), C.size_t(model), C.double(loss)))
}

// AccumulateWeighted is Accumulate with the weight of the micro-batch in the step's mean, such as
// its number of labels.
func (o *Optimizer) AccumulateWeighted(model int, loss, weight float64) error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_accumulate_weighted(
		o.c(), C.size_t(model), C.double(loss), C.double(weight)))
}

// Step is one coordinated step: check, clip, share, update, synchronise.
func (o *Optimizer) Step() (StepReport, error) {
	defer runtime.KeepAlive(o)
	var r C.mmopt_step_report
	if err := o.done(C.mmopt_optimizer_step(o.c(), &r)); err != nil {
		return StepReport{}, err
	}
	return report(&r), nil
}

// Steps taken, those before Load included.
func (o *Optimizer) Steps() uint64 {
	defer runtime.KeepAlive(o)
	return uint64(C.mmopt_optimizer_n_steps(o.c()))
}

// Rates of one model, as of the last step.
func (o *Optimizer) Rates(model int) (Rates, error) {
	defer runtime.KeepAlive(o)
	var r C.mmopt_rates
	if err := take(C.mmopt_optimizer_rates(o.c(), C.size_t(model), &r)); err != nil {
		return Rates{}, err
	}
	return rates(&r), nil
}

// SetLearningRate sets the base rate of the coming steps.
func (o *Optimizer) SetLearningRate(rate float64) error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_set_learning_rate(o.c(), C.double(rate)))
}

// SetModelWeight sets a model's weight for the coming steps.
func (o *Optimizer) SetModelWeight(model int, weight float64) error {
	defer runtime.KeepAlive(o)
	return take(C.mmopt_optimizer_set_model_weight(o.c(), C.size_t(model), C.double(weight)))
}

// ReportValidation reports one validation score per model, higher is better: accuracies, or negated
// losses. LRSchedulePlateau and the option weighting "validation" act on them.
func (o *Optimizer) ReportValidation(scores []float64) error {
	defer runtime.KeepAlive(o)
	p := (*C.double)(unsafe.SliceData(scores))
	return take(C.mmopt_optimizer_report_validation(o.c(), p, C.size_t(len(scores))))
}

// MetricsJSON is one JSON object: how much the models' gradients agree and how far their parameters
// are apart, as of the last step that the option metrics_every named.
func (o *Optimizer) MetricsJSON() (string, error) {
	defer runtime.KeepAlive(o)
	var json *C.char
	if err := take(C.mmopt_optimizer_metrics_json(o.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// Plan tells people which parameters of the models belong together and why, and what is done with
// their gradients and values.
func (o *Optimizer) Plan() (string, error) {
	defer runtime.KeepAlive(o)
	var text *C.char
	if err := take(C.mmopt_optimizer_plan(o.c(), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// PlanJSON is the plan as one JSON object.
func (o *Optimizer) PlanJSON() (string, error) {
	defer runtime.KeepAlive(o)
	var json *C.char
	if err := take(C.mmopt_optimizer_plan_json(o.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// SaveCheckpoint writes the optimizer's state, not the host's values, into a directory.
func (o *Optimizer) SaveCheckpoint(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(o)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_optimizer_save_checkpoint(o.c(), d) })
}

// Resume goes to the state that SaveCheckpoint wrote; models and parameters must be the same.
func (o *Optimizer) Resume(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(o)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_optimizer_resume(o.c(), d) })
}

// HostParameterFromDLPack describes a parameter by two DLManagedTensorVersioned in C memory, dense:
// its value, f32, and its gradient (nil: none). They must stay until the optimizer is closed, or be
// handed over with KeepDLPack.
func HostParameterFromDLPack(name string, value, gradient unsafe.Pointer) (HostParameter, error) {
	return hostParameterFromDLPack(name, value, gradient, false)
}

// HostParameterFromDLPackStrided is that for values that are f32, bf16 or f16, and for any strides
// that are not negative.
func HostParameterFromDLPackStrided(
	name string, value, gradient unsafe.Pointer,
) (HostParameter, error) {
	return hostParameterFromDLPack(name, value, gradient, true)
}

func hostParameterFromDLPack(
	name string, value, gradient unsafe.Pointer, strided bool,
) (HostParameter, error) {
	var a arena
	defer a.free()
	n := a.text(name)
	raw, layout := array[C.mmopt_parameter](&a, 1), array[C.mmopt_parameter_layout](&a, 1)
	C.mmopt_parameter_layout_init(layout)
	err := a.call(func() *C.mmopt_error {
		if strided {
			return C.mmopt_parameter_from_dlpack_strided(n, value, gradient, layout, raw)
		}
		return C.mmopt_parameter_from_dlpack(n, value, gradient, raw)
	})
	if err != nil {
		return HostParameter{}, err
	}
	p := HostParameter{Name: name, Frozen: raw.trainable == 0}
	numbers := func(from *C.int64_t) []int64 {
		if from == nil || raw.n_dims == 0 {
			return nil
		}
		return copied((*int64)(from), raw.n_dims)
	}
	p.Shape = numbers(raw.shape)
	p.Strides, p.GradientStrides = numbers(layout.strides), numbers(layout.gradient_strides)
	if p.Value, err = elementsAt(raw.data, layout.dtype, p.Shape, p.Strides); err != nil {
		return HostParameter{}, err
	}
	if raw.gradient != nil {
		p.Gradient, err = elementsAt(raw.gradient, raw.gradient_dtype, p.Shape, p.GradientStrides)
	}
	return p, err
}

// elementsAt is a slice over host memory, from the first element to the last.
func elementsAt(p unsafe.Pointer, dtype C.uint32_t, shape, strides []int64) (any, error) {
	n := span(shape, strides)
	if n < 0 {
		return nil, &Error{Unsupported, "negative strides"}
	}
	switch dtype {
	case C.MMOPT_DTYPE_BF16:
		return BF16(unsafe.Slice((*uint16)(p), n)), nil
	case C.MMOPT_DTYPE_F16:
		return F16(unsafe.Slice((*uint16)(p), n)), nil
	default:
		return unsafe.Slice((*float32)(p), n), nil
	}
}

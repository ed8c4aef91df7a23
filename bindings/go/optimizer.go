package mmopt

// #include <mmopt.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// HostParameter is one parameter of the host, dense and row-major.
type HostParameter struct {
	// Name is unique within its model; the published name where there is one, as it decides the
	// role.
	Name  string
	Shape []int64
	// Value is updated in place. It stays pinned until the optimizer is closed.
	Value []float32
	// Gradient is a []float32, BF16 or F16 of as many elements, or nil when there is none. It stays
	// pinned too.
	Gradient any
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
type Optimizer struct {
	object
	pinned *runtime.Pinner
	// The lengths of values, by model and parameter.
	lengths [][]int
}

func (o *Optimizer) c() *C.mmopt_optimizer {
	if o == nil {
		return nil
	}
	return (*C.mmopt_optimizer)(o.address())
}

func freeOptimizer(p unsafe.Pointer) { C.mmopt_optimizer_free((*C.mmopt_optimizer)(p)) }

// gradient is the address and element type of a gradient of n elements, pinned by p.
func gradient(p *runtime.Pinner, of any, n int) (unsafe.Pointer, C.uint32_t, error) {
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
		return nil, dtype, invalid("a gradient of type %T", of)
	}
	if length != n {
		return nil, dtype, &Error{Shape, "a gradient and its value differ in length"}
	}
	if length > 0 {
		p.Pin(address)
	}
	return address, dtype, nil
}

func (a *arena) hostParameter(raw *C.mmopt_parameter, p *HostParameter, pinned *runtime.Pinner) {
	n := int64(1)
	for _, d := range p.Shape {
		n *= d
	}
	if n != int64(len(p.Value)) {
		a.fail(&Error{Shape, "parameter '" + p.Name + "': value and shape differ in length"})
		return
	}
	raw.name = a.text(p.Name)
	shape := array[C.int64_t](a, len(p.Shape))
	copy(unsafe.Slice((*int64)(shape), len(p.Shape)), p.Shape)
	raw.shape, raw.n_dims = shape, C.size_t(len(p.Shape))
	if n > 0 {
		pinned.Pin(unsafe.SliceData(p.Value))
		raw.data = (*C.float)(unsafe.SliceData(p.Value))
	}
	var err error
	if raw.gradient, raw.gradient_dtype, err = gradient(pinned, p.Gradient, len(p.Value)); err != nil {
		a.fail(err)
	}
	raw.trainable = flag(!p.Frozen)
	raw.role_json = a.optional(p.Role)
}

func (a *arena) hostModel(raw *C.mmopt_parameters, m *HostModel, pinned *runtime.Pinner) {
	raw.name = a.text(m.Name)
	n := len(m.Parameters)
	parameters := array[C.mmopt_parameter](a, n)
	for i := range m.Parameters {
		a.hostParameter(&unsafe.Slice(parameters, n)[i], &m.Parameters[i], pinned)
	}
	raw.parameters, raw.n_parameters = parameters, C.size_t(n)
	raw.weight = C.double(m.Weight)
	if m.Weight == 0 {
		raw.weight = 1
	}
	raw.architecture = a.optional(m.Architecture)
	raw.vocabulary = a.optional(m.Vocabulary)
	raw.task = a.optional(m.Task)
}

// NewOptimizer plans what models share, and takes hold of their values and gradients, which must
// be apart from one another. nil options: the defaults.
func NewOptimizer(models []HostModel, options *TrainerOptions) (*Optimizer, error) {
	var a arena
	defer a.free()
	pinned := &runtime.Pinner{}
	o, raw := options.c(&a), array[C.mmopt_parameters](&a, len(models))
	result := &Optimizer{pinned: pinned, lengths: make([][]int, len(models))}
	for i := range models {
		a.hostModel(&unsafe.Slice(raw, len(models))[i], &models[i], pinned)
		for _, p := range models[i].Parameters {
			result.lengths[i] = append(result.lengths[i], len(p.Value))
		}
	}
	var made *C.mmopt_optimizer
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_optimizer_create(o, raw, C.size_t(len(models)), &made)
	})
	if err != nil {
		pinned.Unpin()
		return nil, err
	}
	result.own(unsafe.Pointer(made), freeOptimizer, pinned.Unpin)
	return result, nil
}

// Len is the number of models.
func (o *Optimizer) Len() int {
	defer runtime.KeepAlive(o)
	return int(C.mmopt_optimizer_n_models(o.c()))
}

// SetGradient gives a parameter another gradient (nil: none) for the coming steps; it stays pinned
// until the optimizer is closed. Parameters count from 0 in the order they were given.
func (o *Optimizer) SetGradient(model, parameter int, to any) error {
	defer runtime.KeepAlive(o)
	if model < 0 || model >= len(o.lengths) || parameter < 0 || parameter >= len(o.lengths[model]) {
		return invalid("there is no parameter %d of model %d", parameter, model)
	}
	address, dtype, err := gradient(o.pinned, to, o.lengths[model][parameter])
	if err != nil {
		return err
	}
	m, p := C.size_t(model), C.size_t(parameter)
	return take(C.mmopt_optimizer_set_gradient(o.c(), m, p, address, dtype))
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

// Step is one coordinated step: check, clip, share, update, synchronise.
func (o *Optimizer) Step() (Report, error) {
	defer runtime.KeepAlive(o)
	var r C.mmopt_step_report
	if err := take(C.mmopt_optimizer_step(o.c(), &r)); err != nil {
		return Report{}, err
	}
	return report(&r), nil
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

// Plan tells people what is shared with what, and why.
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

// Save writes the optimizer's state, not the host's values, into a directory.
func (o *Optimizer) Save(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(o)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_optimizer_save(o.c(), d) })
}

// Load goes to the state that Save wrote; models and parameters must be the same.
func (o *Optimizer) Load(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(o)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_optimizer_load(o.c(), d) })
}

// HostParameterFromDLPack describes a parameter by two DLManagedTensorVersioned in C memory: its
// value and its gradient (nil: none). They must stay until the optimizer is closed.
func HostParameterFromDLPack(name string, value, gradient unsafe.Pointer) (HostParameter, error) {
	var a arena
	defer a.free()
	n := a.text(name)
	var raw C.mmopt_parameter
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_parameter_from_dlpack(n, value, gradient, &raw)
	})
	if err != nil {
		return HostParameter{}, err
	}
	p := HostParameter{Name: name, Frozen: raw.trainable == 0}
	size := 1
	if raw.n_dims > 0 {
		p.Shape = copied((*int64)(raw.shape), raw.n_dims)
		for _, d := range p.Shape {
			size *= int(d)
		}
	}
	p.Value = unsafe.Slice((*float32)(raw.data), size)
	if raw.gradient == nil {
		return p, nil
	}
	switch raw.gradient_dtype {
	case C.MMOPT_DTYPE_BF16:
		p.Gradient = BF16(unsafe.Slice((*uint16)(raw.gradient), size))
	case C.MMOPT_DTYPE_F16:
		p.Gradient = F16(unsafe.Slice((*uint16)(raw.gradient), size))
	default:
		p.Gradient = unsafe.Slice((*float32)(raw.gradient), size)
	}
	return p, nil
}

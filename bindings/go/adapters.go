package mmopt

// #include <mmopt.h>
import "C"

import (
	"runtime"
	"slices"
)

// AdapterOptions say which low-rank adapters a model gets: y = x W + b + Alpha/Rank · dropout(x) Aᵀ Bᵀ
// (Hu et al. 2021, arXiv 2106.09685). Zero values are the library's defaults.
type AdapterOptions struct {
	// TargetModules are the matrices of linear layers that get one: names of modules, whole or their
	// last parts (query, c_attn), or patterns of modules or of weights. Required.
	TargetModules []string
	// Rank; 0: 8.
	Rank int
	// Alpha; 0: 8.
	Alpha float64
	// Dropout probability of what goes into A, at least 0, below 1.
	Dropout float64
	// ModulesToSave are trained whole and saved with the adapters, named likewise. nil: the newly
	// initialised parts of the task's head; an empty slice: none.
	ModulesToSave []string
}

// AddAdapters puts a low-rank adapter beside each matrix that the options name, and freezes
// everything but the adapters and the modules to save. The model gives the same as without until
// the first step. Trainer.SaveModel merges them, Trainer.SaveAdapters writes them alone.
func (m *Model) AddAdapters(options AdapterOptions) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	o := array[C.mmopt_adapter_options](&a, 1)
	C.mmopt_adapter_options_init(o)
	o.target_modules = a.texts(options.TargetModules)
	o.n_target_modules = C.size_t(len(options.TargetModules))
	if options.Rank != 0 {
		o.rank = C.size_t(options.Rank)
	}
	if options.Alpha != 0 {
		o.alpha = C.double(options.Alpha)
	}
	o.dropout = C.double(options.Dropout)
	if options.ModulesToSave != nil {
		// One more, so that it is not NULL without any.
		o.modules_to_save = a.texts(append(slices.Clone(options.ModulesToSave), ""))
		o.n_modules_to_save = C.size_t(len(options.ModulesToSave))
	}
	return a.call(func() *C.mmopt_error { return C.mmopt_model_add_adapters(m.c(), o) })
}

// LoadAdapters gives the model the adapters of a directory, in the layout of Python's peft:
// adapter_config.json and adapter_model.safetensors, as Trainer.SaveAdapters writes them. The files
// are read when the trainer is created.
func (m *Model) LoadAdapters(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_load_adapters(m.c(), d) })
}

// SaveAdapters writes the adapters of one model alone, with the modules that were trained whole, in
// the layout of Python's peft.
func (t *Trainer) SaveAdapters(model int, directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	d := a.text(directory)
	return a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_save_adapters(t.c(), C.size_t(model), d)
	})
}

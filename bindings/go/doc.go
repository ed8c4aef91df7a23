// Package mmopt trains several transformers together: BERT, GPT-2, RoBERTa or any differentiable
// ONNX model, on a stock ONNX Runtime. It is a thin layer over the C library libmmopt.
//
// Objects own memory of the C library and have a Close method, which frees it. An object that is
// not closed is freed after it becomes unreachable. Do not close an object while another call uses
// it. Only one goroutine at a time may use a Trainer, an Optimizer, a Model or a Loader; other
// objects may be used by several.
//
// Go memory is pinned during a call and not kept afterwards. The exception is an Optimizer, which
// updates the caller's slices in place: they stay pinned until it is closed, and gradients until
// others take their place.
//
// Errors have the type *Error, with a Code; errors.Is compares them with ErrNotFound and so on.
// Options come from a function such as DefaultTrainerOptions; nil means the defaults.
//
// Building needs cgo and, by default, pkg-config to find the library (mmopt.pc). The build tag
// mmopt_static links it statically. With the tag mmopt_manual, CGO_CFLAGS and CGO_LDFLAGS are used
// instead of pkg-config. The tag mmopt_gc runs the garbage collector at each use of an object, to
// find code that uses an object's memory after it is freed.
package mmopt

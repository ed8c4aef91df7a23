// Package mmopt trains several transformers together: BERT, GPT-2, RoBERTa or any differentiable
// ONNX model, on a stock ONNX Runtime. It is a thin layer over the C library libmmopt.
//
// Objects own memory of the C library and have a Close method; what is not closed is cleaned up
// when it becomes unreachable. Close an object when no other call uses it. A Trainer, an Optimizer,
// a Model and a Loader belong to one goroutine at a time; everything else may be shared.
//
// Go memory is pinned for the length of a call and forgotten afterwards. The one exception is an
// Optimizer, which works in place on the host's slices: they stay pinned until it is closed.
//
// Errors are of type *Error and carry a Code; errors.Is tells them apart with ErrNotFound and its
// like. Options start from a function such as DefaultTrainerOptions; nil means the defaults.
//
// Building needs cgo and, by default, pkg-config to find the library (mmopt.pc). The build tag
// mmopt_static links it statically; with mmopt_manual, CGO_CFLAGS and CGO_LDFLAGS say where it is.
// The tag mmopt_gc collects garbage at each use of an object, to find what is used after its end.
package mmopt

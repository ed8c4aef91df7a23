// Package mmopt trains several transformers together: BERT, GPT-2, RoBERTa or any differentiable
// ONNX model, on a stock ONNX Runtime. It is a thin layer over the C library libmmopt.
//
// Objects own memory of the C library and have a Close method; what is not closed is cleaned up
// when it becomes unreachable. No Go memory is kept by the library after a call. A Trainer and a
// Loader belong to one goroutine at a time; everything else may be shared. Errors are of type
// *Error and carry a Code.
//
// Building needs cgo and, by default, pkg-config to find the library (mmopt.pc). With the build tag
// mmopt_manual, CGO_CFLAGS and CGO_LDFLAGS say where it is.
package mmopt

package mmopt

// #include <mmopt.h>
// #include <stdlib.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Version is the version of the loaded library.
func Version() string { return C.GoString(C.mmopt_version()) }

// LoadRuntime loads ONNX Runtime from a file or directory; an empty path looks where the library
// usually lies. Creating a trainer does it too.
func LoadRuntime(path string) error {
	p, free := optional(path)
	defer free()
	return take(C.mmopt_runtime_load(p))
}

// RuntimeVersion is the version of the loaded ONNX Runtime, empty before it is loaded.
func RuntimeVersion() string { return C.GoString(C.mmopt_runtime_version()) }

// optional is a C copy of a text, NULL for an empty one, and what frees it.
func optional(text string) (*C.char, func()) {
	if text == "" {
		return nil, func() {}
	}
	return cstring(text)
}

func cstring(text string) (*C.char, func()) {
	p := C.CString(text)
	return p, func() { C.free(unsafe.Pointer(p)) }
}

// cstrings is a C array of C copies of texts, and what frees all of it.
func cstrings(texts []string) (**C.char, func()) {
	if len(texts) == 0 {
		return nil, func() {}
	}
	array := (**C.char)(C.malloc(C.size_t(len(texts)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	all := unsafe.Slice(array, len(texts))
	for i, text := range texts {
		all[i] = C.CString(text)
	}
	return array, func() {
		for _, p := range all {
			C.free(unsafe.Pointer(p))
		}
		C.free(unsafe.Pointer(array))
	}
}

// takeText turns an owned text of the C library into a Go string.
func takeText(p *C.char) string {
	defer C.mmopt_text_free(p)
	return C.GoString(p)
}

// object is a pointer of the C library that is freed once: by Close, or when it is unreachable.
type object struct {
	pointer unsafe.Pointer
	cleanup runtime.Cleanup
	free    func(unsafe.Pointer)
}

// own hands p to o; free must not refer to o.
func (o *object) own(p unsafe.Pointer, free func(unsafe.Pointer)) {
	o.pointer, o.free = p, free
	o.cleanup = runtime.AddCleanup(o, free, p)
}

// Close frees the object. Closing it again does nothing.
func (o *object) Close() {
	if o.pointer == nil {
		return
	}
	o.cleanup.Stop()
	o.free(o.pointer)
	o.pointer = nil
}

package mmopt

// #include <mmopt.h>
// #include <stdlib.h>
import "C"

import (
	"runtime"
	"strings"
	"unsafe"
)

// resource is a pointer of the C library and what goes with it. It must not refer to its object.
type resource struct {
	pointer unsafe.Pointer
	free    func(unsafe.Pointer)
	// after runs when the pointer is freed.
	after []func()
}

func (r *resource) release() {
	r.free(r.pointer)
	for _, f := range r.after {
		f()
	}
}

// object frees a resource once: by Close, or when it is unreachable.
type object struct {
	resource *resource
	cleanup  runtime.Cleanup
}

func (o *object) own(p unsafe.Pointer, free func(unsafe.Pointer), after ...func()) {
	o.resource = &resource{p, free, after}
	o.cleanup = runtime.AddCleanup(o, (*resource).release, o.resource)
}

func (o *object) address() unsafe.Pointer {
	if o.resource == nil {
		return nil
	}
	collectGarbage()
	return o.resource.pointer
}

// Close frees the object. Closing it again does nothing. Calls on a closed object fail. The result
// is always nil; it makes objects of type io.Closer.
func (o *object) Close() error {
	if o.resource == nil {
		return nil
	}
	o.cleanup.Stop()
	o.resource.release()
	o.resource = nil
	return nil
}

// arena holds the C copies and the pinned Go memory of one call.
type arena struct {
	blocks []unsafe.Pointer
	pinned runtime.Pinner
	// err is the first argument that could not be converted.
	err error
}

func (a *arena) free() {
	for _, p := range a.blocks {
		C.free(p)
	}
	a.pinned.Unpin()
}

// call makes a call unless an argument could not be converted.
func (a *arena) call(f func() *C.mmopt_error) error {
	if a.err != nil {
		return a.err
	}
	return take(f())
}

func (a *arena) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// text is a C copy of a text.
func (a *arena) text(text string) *C.char {
	if i := strings.IndexByte(text, 0); i >= 0 {
		a.fail(invalid("a text has a NUL at byte %d", i))
		text = text[:i]
	}
	p := C.CString(text)
	a.blocks = append(a.blocks, unsafe.Pointer(p))
	return p
}

// optional is a C copy of a text, NULL for an empty one.
func (a *arena) optional(text string) *C.char {
	if text == "" {
		return nil
	}
	return a.text(text)
}

func (a *arena) size(what string, n int) C.size_t {
	if n < 0 {
		a.fail(invalid("%s is %d, less than 0", what, n))
		return 0
	}
	return C.size_t(n)
}

func (a *arena) uint32(what string, n int) C.uint32_t {
	if n < 0 || int64(n) > 1<<32-1 {
		a.fail(invalid("%s is %d", what, n))
		return 0
	}
	return C.uint32_t(n)
}

// array is a zeroed C array of n elements; NULL for none.
func array[T any](a *arena, n int) *T {
	if n == 0 {
		return nil
	}
	var element T
	p := C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(element)))
	a.blocks = append(a.blocks, p)
	return (*T)(p)
}

// texts is a C array of C copies of texts.
func (a *arena) texts(texts []string) **C.char {
	all := array[*C.char](a, len(texts))
	for i, text := range texts {
		unsafe.Slice(all, len(texts))[i] = a.text(text)
	}
	return all
}

// pinnedArray is the address of a slice's elements, which stay there for the length of the call.
func pinnedArray[T any](a *arena, s []T) *T {
	p := unsafe.SliceData(s)
	if len(s) == 0 {
		return nil
	}
	a.pinned.Pin(p)
	return p
}

// takeText turns an owned text of the C library into a Go string.
func takeText(p *C.char) string {
	defer C.mmopt_string_free(p)
	return C.GoString(p)
}

func flag(b bool) C.uint32_t {
	if b {
		return 1
	}
	return 0
}

// copied is a Go copy of n elements of the C library.
func copied[T any](p *T, n C.size_t) []T {
	return append([]T(nil), unsafe.Slice(p, int(n))...)
}

// defaulted refuses options that did not start from their defaults, as their zeros would count.
func (a *arena) defaulted(is bool, what string) {
	if !is {
		a.fail(invalid("%s must start from Default%s", what, what))
	}
}

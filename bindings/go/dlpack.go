package mmopt

/*
#include <mmopt.h>

// What a DLManagedTensorVersioned begins with in every 1.x version.
struct managed {
    uint32_t version[2];
    void *context;
    void (*deleter)(void *);
};

static void mmopt_go_free_dlpack(void *managed)
{
    const struct managed *head = managed;
    if (head != NULL && head->deleter != NULL)
        head->deleter(managed);
}
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// FromDLPack looks at a DLManagedTensorVersioned in C memory. The elements of the result lie there,
// and are valid as long as it is; its deleter is not called.
func FromDLPack(name string, managed unsafe.Pointer) (Tensor, error) {
	var a arena
	defer a.free()
	n := a.text(name)
	var raw C.mmopt_tensor
	err := a.call(func() *C.mmopt_error { return C.mmopt_tensor_from_dlpack(n, managed, &raw) })
	if err != nil {
		return Tensor{}, err
	}
	return view(&raw)
}

// ToDLPack copies a tensor into a new DLManagedTensorVersioned in C memory. The caller owns it and
// calls its deleter once.
func (t Tensor) ToDLPack() (unsafe.Pointer, error) {
	var a arena
	defer a.free()
	raw := a.tensors([]Tensor{t})
	var managed unsafe.Pointer
	err := a.call(func() *C.mmopt_error { return C.mmopt_tensor_to_dlpack(raw, &managed) })
	runtime.KeepAlive(t)
	if err != nil {
		return nil, err
	}
	return managed, nil
}

// FreeDLPack calls a DLManagedTensorVersioned's deleter. nil is harmless.
func FreeDLPack(managed unsafe.Pointer) { C.mmopt_go_free_dlpack(managed) }

package mmopt

// #include <mmopt.h>
import "C"

import "unsafe"

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
	if err != nil {
		return nil, err
	}
	return managed, nil
}

// FreeDLPack calls a DLManagedTensorVersioned's deleter. nil is harmless.
func FreeDLPack(managed unsafe.Pointer) { C.mmopt_dlpack_free(managed) }

// DLPackFromUnversioned wraps a DLManagedTensor, the form before DLPack 1.0, without copying
// elements. The caller gives the old one up, unless there is an error, and owns the new one.
func DLPackFromUnversioned(unversioned unsafe.Pointer) (unsafe.Pointer, error) {
	var managed unsafe.Pointer
	err := take(C.mmopt_dlpack_from_unversioned(unversioned, &managed))
	if err != nil {
		return nil, err
	}
	return managed, nil
}

// DLPackToUnversioned wraps a DLManagedTensorVersioned in a DLManagedTensor, without copying
// elements. The caller gives the versioned one up, unless there is an error, and owns the new one.
func DLPackToUnversioned(managed unsafe.Pointer) (unsafe.Pointer, error) {
	var unversioned unsafe.Pointer
	err := take(C.mmopt_dlpack_to_unversioned(managed, &unversioned))
	if err != nil {
		return nil, err
	}
	return unversioned, nil
}

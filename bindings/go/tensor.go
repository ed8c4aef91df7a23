package mmopt

// #include <mmopt.h>
import "C"

import (
	"fmt"
	"unsafe"
)

// F16 and BF16 are the bits of 16-bit floats.
type (
	F16  []uint16
	BF16 []uint16
)

// Tensor is a dense, row-major tensor in Go memory.
type Tensor struct {
	// Name of the input, output or parameter.
	Name string
	// Shape has the dimensions, outermost first; nil for a scalar.
	Shape []int64
	// Data is a []float32, []float64, []int64, []int32, []int16, []int8, []uint64, []uint32,
	// []uint16, []uint8, []bool, F16 or BF16.
	Data any
}

// Float32s are the elements, or nil when they are of another type.
func (t Tensor) Float32s() []float32 {
	data, _ := t.Data.([]float32)
	return data
}

// Rows are the elements in rows along the last dimension; nil when they are no float32.
func (t Tensor) Rows() [][]float32 {
	all := t.Float32s()
	width := len(all)
	if n := len(t.Shape); n > 0 {
		width = int(t.Shape[n-1])
	}
	var rows [][]float32
	for ; width > 0 && len(all) >= width; all = all[width:] {
		rows = append(rows, all[:width:width])
	}
	return rows
}

func fill[T any](a *arena, raw *C.mmopt_tensor, dtype C.uint32_t, data []T) {
	var element T
	raw.dtype = dtype
	raw.data = unsafe.Pointer(pinnedArray(a, data))
	raw.n_bytes = C.size_t(len(data)) * C.size_t(unsafe.Sizeof(element))
}

// elements describes the elements of a tensor, which are pinned for the call.
func (a *arena) elements(raw *C.mmopt_tensor, name string, data any) {
	switch data := data.(type) {
	case []float32:
		fill(a, raw, C.MMOPT_DTYPE_F32, data)
	case []float64:
		fill(a, raw, C.MMOPT_DTYPE_F64, data)
	case []int64:
		fill(a, raw, C.MMOPT_DTYPE_I64, data)
	case []int32:
		fill(a, raw, C.MMOPT_DTYPE_I32, data)
	case []int16:
		fill(a, raw, C.MMOPT_DTYPE_I16, data)
	case []int8:
		fill(a, raw, C.MMOPT_DTYPE_I8, data)
	case []uint64:
		fill(a, raw, C.MMOPT_DTYPE_U64, data)
	case []uint32:
		fill(a, raw, C.MMOPT_DTYPE_U32, data)
	case []uint16:
		fill(a, raw, C.MMOPT_DTYPE_U16, data)
	case []uint8:
		fill(a, raw, C.MMOPT_DTYPE_U8, data)
	case []bool:
		fill(a, raw, C.MMOPT_DTYPE_BOOL, data)
	case F16:
		fill(a, raw, C.MMOPT_DTYPE_F16, data)
	case BF16:
		fill(a, raw, C.MMOPT_DTYPE_BF16, data)
	default:
		a.fail(invalid("tensor '%s': elements of type %T", name, data))
	}
}

// tensors is a C array of views of tensors, whose memory is pinned for the call.
func (a *arena) tensors(tensors []Tensor) *C.mmopt_tensor {
	all := array[C.mmopt_tensor](a, len(tensors))
	for i, t := range tensors {
		raw := &unsafe.Slice(all, len(tensors))[i]
		raw.name = a.text(t.Name)
		raw.shape = (*C.int64_t)(pinnedArray(a, t.Shape))
		raw.n_dims = C.size_t(len(t.Shape))
		a.elements(raw, t.Name, t.Data)
	}
	return all
}

func viewed[T any](raw *C.mmopt_tensor) []T {
	var element T
	return unsafe.Slice((*T)(raw.data), uintptr(raw.n_bytes)/unsafe.Sizeof(element))
}

// view is a tensor whose elements lie where the C library has them.
func view(raw *C.mmopt_tensor) (Tensor, error) {
	t := Tensor{Name: C.GoString(raw.name)}
	if raw.n_dims > 0 {
		t.Shape = copied((*int64)(raw.shape), raw.n_dims)
	}
	switch raw.dtype {
	case C.MMOPT_DTYPE_F32:
		t.Data = viewed[float32](raw)
	case C.MMOPT_DTYPE_F64:
		t.Data = viewed[float64](raw)
	case C.MMOPT_DTYPE_I64:
		t.Data = viewed[int64](raw)
	case C.MMOPT_DTYPE_I32:
		t.Data = viewed[int32](raw)
	case C.MMOPT_DTYPE_I16:
		t.Data = viewed[int16](raw)
	case C.MMOPT_DTYPE_I8:
		t.Data = viewed[int8](raw)
	case C.MMOPT_DTYPE_U64:
		t.Data = viewed[uint64](raw)
	case C.MMOPT_DTYPE_U32:
		t.Data = viewed[uint32](raw)
	case C.MMOPT_DTYPE_U16:
		t.Data = viewed[uint16](raw)
	case C.MMOPT_DTYPE_U8:
		t.Data = viewed[uint8](raw)
	case C.MMOPT_DTYPE_BOOL:
		t.Data = viewed[bool](raw)
	case C.MMOPT_DTYPE_F16:
		t.Data = F16(viewed[uint16](raw))
	case C.MMOPT_DTYPE_BF16:
		t.Data = BF16(viewed[uint16](raw))
	default:
		return Tensor{}, &Error{Unsupported, fmt.Sprintf("element type %d", raw.dtype)}
	}
	return t, nil
}

// cloned is a tensor in Go memory.
func cloned(raw *C.mmopt_tensor) (Tensor, error) {
	t, err := view(raw)
	if err != nil {
		return t, err
	}
	switch data := t.Data.(type) {
	case []float32:
		t.Data = append([]float32(nil), data...)
	case []float64:
		t.Data = append([]float64(nil), data...)
	case []int64:
		t.Data = append([]int64(nil), data...)
	case []int32:
		t.Data = append([]int32(nil), data...)
	case []int16:
		t.Data = append([]int16(nil), data...)
	case []int8:
		t.Data = append([]int8(nil), data...)
	case []uint64:
		t.Data = append([]uint64(nil), data...)
	case []uint32:
		t.Data = append([]uint32(nil), data...)
	case []uint16:
		t.Data = append([]uint16(nil), data...)
	case []uint8:
		t.Data = append([]uint8(nil), data...)
	case []bool:
		t.Data = append([]bool(nil), data...)
	case F16:
		t.Data = append(F16(nil), data...)
	case BF16:
		t.Data = append(BF16(nil), data...)
	}
	return t, nil
}

// clonedAll are Go copies of an array of tensors.
func clonedAll(raw *C.mmopt_tensor, n C.size_t) ([]Tensor, error) {
	all := make([]Tensor, n)
	for i := range all {
		var err error
		if all[i], err = cloned(&unsafe.Slice(raw, int(n))[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

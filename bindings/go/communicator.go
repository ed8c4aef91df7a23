package mmopt

// #include "callbacks.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Numbers are those of one type that are summed over ranks: exactly one of the slices is set. They
// lie in memory of the library and are valid during the call.
type Numbers struct {
	F32 []float32
	F64 []float64
	U64 []uint64
	I64 []int64
}

// Transport is an engine that carries numbers between ranks, such as a network library of the host's.
// Every rank is asked for the same operations in the same order, except Send and Receive, which pair
// up. An operation runs on a goroutine of its own while the call into the library waits, must not use
// the library's objects, and must fail by itself when another rank does not answer in time. What it
// returns, or its panic, fails the call with ErrCommunication. Slices are memory of the library, valid
// during the call.
type Transport interface {
	// Rank of this process, below Size; neither changes.
	Rank() int
	// Size is how many ranks there are.
	Size() int
	// AllReduce replaces each number by its sum over all ranks, with the same bits on every rank.
	AllReduce(numbers Numbers) error
	// Broadcast replaces the bytes by those of rank root.
	Broadcast(data []byte, root int) error
	// AllGather puts every rank's data into all, in order of rank.
	AllGather(data, all []byte) error
	// ReduceScatter sums numbers, equal parts for each rank, over all ranks, and puts the part of this
	// rank into part.
	ReduceScatter(numbers, part Numbers) error
	// Send gives data to another rank, which receives as many bytes.
	Send(data []byte, to int) error
	// Receive takes them.
	Receive(data []byte, from int) error
	// Barrier returns when every rank has called it.
	Barrier() error
	// Abort is told that this rank gives up.
	Abort(message string)
}

// Communicator is one rank's access to all others. It may be closed before the trainers that use it.
type Communicator struct {
	object
}

func (c *Communicator) c() *C.mmopt_communicator {
	if c == nil {
		return nil
	}
	return (*C.mmopt_communicator)(c.address())
}

func freeCommunicator(p unsafe.Pointer) { C.mmopt_communicator_free((*C.mmopt_communicator)(p)) }

// NewCommunicator makes a communicator on a transport. It exchanges nothing.
func NewCommunicator(transport Transport) (*Communicator, error) {
	if transport == nil {
		return nil, invalid("a communicator needs a transport")
	}
	handle := cgo.NewHandle(transport)
	var made *C.mmopt_communicator
	if err := take(C.mmopt_go_communicator_create(C.uintptr_t(handle), &made)); err != nil {
		handle.Delete()
		return nil, err
	}
	c := &Communicator{}
	c.own(unsafe.Pointer(made), freeCommunicator)
	return c, nil
}

// Rank of this process.
func (c *Communicator) Rank() int {
	defer runtime.KeepAlive(c)
	return int(C.mmopt_communicator_rank(c.c()))
}

// Size is how many ranks there are.
func (c *Communicator) Size() int {
	defer runtime.KeepAlive(c)
	return int(C.mmopt_communicator_size(c.c()))
}

// Check tries each operation of the transport; every rank calls it.
func (c *Communicator) Check() error {
	defer runtime.KeepAlive(c)
	return take(C.mmopt_communicator_check(c.c()))
}

// Barrier returns when every rank has called it.
func (c *Communicator) Barrier() error {
	defer runtime.KeepAlive(c)
	return take(C.mmopt_communicator_barrier(c.c()))
}

// Abort tells the others that this rank gives up. Its later exchanges fail.
func (c *Communicator) Abort(message string) error {
	defer runtime.KeepAlive(c)
	var a arena
	defer a.free()
	text := a.text(message)
	return a.call(func() *C.mmopt_error { return C.mmopt_communicator_abort(c.c(), text) })
}

// Traffic is what a communicator has exchanged on this rank.
type Traffic struct {
	// Calls of the transport.
	Calls uint64
	// Bytes that were handed to each operation.
	AllReduce, Broadcast, AllGather, ReduceScatter, Send, Receive uint64
	// Wire is how many bytes a rank sends for all of it where the transport uses rings; mmopt.h has the
	// formula.
	Wire uint64
}

// Traffic is what was exchanged so far.
func (c *Communicator) Traffic() (Traffic, error) {
	defer runtime.KeepAlive(c)
	var t C.mmopt_traffic
	err := take(C.mmopt_communicator_traffic(c.c(), &t))
	return Traffic{
		uint64(t.n_calls), uint64(t.all_reduce_bytes), uint64(t.broadcast_bytes),
		uint64(t.all_gather_bytes), uint64(t.reduce_scatter_bytes), uint64(t.send_bytes),
		uint64(t.receive_bytes), uint64(t.wire_bytes),
	}, err
}

// RankOptions are how replicas keep together. Start from DefaultRankOptions.
type RankOptions struct {
	defaulted bool
	// BucketBytes: gradients are summed in buckets of so many bytes; default 25 MiB.
	BucketBytes int
	// CheckEvery so many steps checksums of all parameters are compared; 0: never; default 100.
	CheckEvery uint64
	// SyncEvery: replicas take so many steps by themselves before they meet (local SGD, DiLoCo); 0
	// (default): gradients are summed at every step.
	SyncEvery uint64
	// OuterLR and OuterMomentum of the outer step, with SyncEvery; default 0.7 and 0.9, for hundreds
	// of meetings. Where a run has fewer than about a hundred, 0.5 and 0.5 train better.
	OuterLR, OuterMomentum float64
	// ShardState: each rank has the moments of some parameters and updates these; then all get their
	// values (ZeRO stage 1).
	ShardState bool
	// BF16Gradients are rounded to bfloat16 on the wire, which halves their bytes.
	BF16Gradients bool
	// Overlap: in a pass of all models the gradients of each are summed as soon as its own pass has
	// ended, while the others still run, and not in the step; the results have the same bits.
	Overlap bool
	// Replicas, with the option placement: the communicator of the ranks that run the same models in
	// other groups of ranks, in the order of groups; then the trainer's own communicator joins the
	// ranks of one group. Nil: one group.
	Replicas *Communicator
}

// DefaultRankOptions are the library's defaults.
func DefaultRankOptions() RankOptions {
	var raw C.mmopt_rank_options
	C.mmopt_rank_options_init(&raw)
	return RankOptions{
		true, int(raw.bucket_bytes), uint64(raw.check_every), uint64(raw.sync_every),
		float64(raw.outer_lr), float64(raw.outer_momentum), raw.shard_state == 1,
		raw.gradient_dtype == C.MMOPT_DTYPE_BF16, raw.overlap == 1, nil,
	}
}

// SetCommunicator makes the trainer one of several replicas, one on each rank, which train as one from
// here on; nil: by itself again. Nil options: the defaults. All ranks call it with the same models and
// options at the same step, and get the weights of rank 0; then all make the same passes, steps,
// checkpoints and resumes in the same order. mmopt.h says what is summed, and what a failure leaves.
func (t *Trainer) SetCommunicator(c *Communicator, options *RankOptions) error {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(c)
	var a arena
	defer a.free()
	raw := array[C.mmopt_rank_options](&a, 1)
	C.mmopt_rank_options_init(raw)
	if o := options; o != nil {
		a.defaulted(o.defaulted, "RankOptions")
		raw.bucket_bytes = a.size("BucketBytes", o.BucketBytes)
		raw.check_every, raw.sync_every = C.uint64_t(o.CheckEvery), C.uint64_t(o.SyncEvery)
		raw.outer_lr, raw.outer_momentum = C.double(o.OuterLR), C.double(o.OuterMomentum)
		raw.shard_state, raw.overlap = flag(o.ShardState), flag(o.Overlap)
		defer runtime.KeepAlive(o.Replicas)
		if o.Replicas != nil && o.Replicas.c() == nil {
			return invalid("the communicator of the replicas is closed")
		}
		raw.replicas = o.Replicas.c()
		if o.BF16Gradients {
			raw.gradient_dtype = C.MMOPT_DTYPE_BF16
		}
	}
	if c != nil && c.c() == nil {
		return invalid("the communicator is closed")
	}
	if a.err != nil {
		return a.err
	}
	return t.done(C.mmopt_trainer_set_communicator(t.c(), c.c(), raw))
}

// GatherModels gives every rank the weights of the models that other ranks train (the option
// placement), so that they can be evaluated, read and saved on any rank until the next step. All ranks
// call it.
func (t *Trainer) GatherModels() error {
	defer runtime.KeepAlive(t)
	return t.done(C.mmopt_trainer_gather_models(t.c()))
}

// carry runs an operation on a goroutine of its own, as neither a panic nor runtime.Goexit may pass
// through C, and writes why it failed. It returns 0 if it has not.
func carry(
	handle C.uintptr_t, call *C.mmopt_communicator_call, operation func(Transport) error,
) C.uint32_t {
	err := errors.New("the operation ended its goroutine")
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		if call.stream != nil {
			err = errors.New("only host memory is carried")
			return
		}
		err = operation(cgo.Handle(handle).Value().(Transport))
	}()
	<-done
	if err == nil {
		return 0
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(call.message)), int(call.message_size))
	text[copy(text[:len(text)-1], err.Error())] = 0
	return 1
}

func numbers(data unsafe.Pointer, n int, dtype C.uint32_t) Numbers {
	switch dtype {
	case C.MMOPT_DTYPE_F32:
		return Numbers{F32: unsafe.Slice((*float32)(data), n)}
	case C.MMOPT_DTYPE_F64:
		return Numbers{F64: unsafe.Slice((*float64)(data), n)}
	case C.MMOPT_DTYPE_U64:
		return Numbers{U64: unsafe.Slice((*uint64)(data), n)}
	default:
		return Numbers{I64: unsafe.Slice((*int64)(data), n)}
	}
}

func byteSlice(data unsafe.Pointer, n int) []byte { return unsafe.Slice((*byte)(data), n) }

//export mmoptGoRank
func mmoptGoRank(handle C.uintptr_t) C.size_t {
	return C.size_t(cgo.Handle(handle).Value().(Transport).Rank())
}

//export mmoptGoSize
func mmoptGoSize(handle C.uintptr_t) C.size_t {
	return C.size_t(cgo.Handle(handle).Value().(Transport).Size())
}

//export mmoptGoAllReduce
func mmoptGoAllReduce(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n C.size_t,
	dtype C.uint32_t,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.AllReduce(numbers(data, int(n), dtype))
	})
}

//export mmoptGoBroadcast
func mmoptGoBroadcast(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n, root C.size_t,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.Broadcast(byteSlice(data, int(n)), int(root))
	})
}

//export mmoptGoAllGather
func mmoptGoAllGather(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n C.size_t,
	all unsafe.Pointer,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.AllGather(byteSlice(data, int(n)), byteSlice(all, int(n)*t.Size()))
	})
}

//export mmoptGoReduceScatter
func mmoptGoReduceScatter(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n C.size_t,
	dtype C.uint32_t, part unsafe.Pointer,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.ReduceScatter(numbers(data, int(n)*t.Size(), dtype), numbers(part, int(n), dtype))
	})
}

//export mmoptGoSend
func mmoptGoSend(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n, to C.size_t,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.Send(byteSlice(data, int(n)), int(to))
	})
}

//export mmoptGoReceive
func mmoptGoReceive(
	handle C.uintptr_t, call *C.mmopt_communicator_call, data unsafe.Pointer, n, from C.size_t,
) C.uint32_t {
	return carry(handle, call, func(t Transport) error {
		return t.Receive(byteSlice(data, int(n)), int(from))
	})
}

//export mmoptGoBarrier
func mmoptGoBarrier(handle C.uintptr_t, call *C.mmopt_communicator_call) C.uint32_t {
	return carry(handle, call, Transport.Barrier)
}

//export mmoptGoAbort
func mmoptGoAbort(handle C.uintptr_t, message *C.char) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A rank that gives up has told its error already.
		defer func() { _ = recover() }()
		cgo.Handle(handle).Value().(Transport).Abort(C.GoString(message))
	}()
	<-done
}

//export mmoptGoFreeTransport
func mmoptGoFreeTransport(handle C.uintptr_t) { cgo.Handle(handle).Delete() }

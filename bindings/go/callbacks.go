package mmopt

// #include "callbacks.h"
import "C"

import (
	"errors"
	"math"
	"runtime"
	"runtime/cgo"
	"sync"
)

// LogLevel is how much a message matters.
type LogLevel uint32

// The levels.
const (
	LogOff     LogLevel = C.MMOPT_LOG_LEVEL_OFF
	LogError   LogLevel = C.MMOPT_LOG_LEVEL_ERROR
	LogWarning LogLevel = C.MMOPT_LOG_LEVEL_WARNING
	LogInfo    LogLevel = C.MMOPT_LOG_LEVEL_INFO
	LogDebug   LogLevel = C.MMOPT_LOG_LEVEL_DEBUG
)

// Phase is what is about to happen.
type Phase uint32

// The phases.
const (
	PhaseForwardBackward Phase = C.MMOPT_PHASE_FORWARD_BACKWARD
	PhaseStep            Phase = C.MMOPT_PHASE_STEP
	PhaseEvaluate        Phase = C.MMOPT_PHASE_EVALUATE
)

// Progress is where training stands.
type Progress struct {
	Phase Phase
	// Model that it concerns; -1 for all.
	Model int
	// Steps taken.
	Steps uint64
}

// callbacks are those of one object, and what came of them in the call that runs.
type callbacks struct {
	log      func(LogLevel, string)
	progress func(Progress) error
	rate     func(model string, step uint64, rate float64) float64
	gradient func(GradientView) GradientAction
	// fit is there while a fit runs.
	fit func(FitProgress) bool

	mutex    sync.Mutex
	stopped  error
	panicked any
	// exited: a callback has called runtime.Goexit.
	exited bool
}

// run calls f on a goroutine of its own and waits for it; a panic is kept, and so is a
// runtime.Goexit, as neither must pass through C. Whether f came to its end.
func (c *callbacks) run(f func()) (ended bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if ended {
				return
			}
			p := recover()
			c.mutex.Lock()
			defer c.mutex.Unlock()
			if p == nil {
				c.exited = true
			} else if c.panicked == nil {
				c.panicked = p
			}
		}()
		f()
		ended = true
	}()
	<-done
	return ended
}

// settle goes on with a callback's panic; else it gives the error with which the progress callback
// stopped the call, or err.
func (c *callbacks) settle(err error) error {
	c.mutex.Lock()
	panicked, stopped, exited := c.panicked, c.stopped, c.exited
	c.panicked, c.stopped, c.exited = nil, nil, false
	c.mutex.Unlock()
	if panicked != nil {
		panic(panicked)
	}
	if exited {
		runtime.Goexit()
	}
	if stopped != nil && errors.Is(err, ErrCancelled) {
		return stopped
	}
	return err
}

func callbacksOf(handle C.uintptr_t) *callbacks {
	return cgo.Handle(handle).Value().(*callbacks)
}

//export mmoptGoLog
func mmoptGoLog(handle C.uintptr_t, level C.uint32_t, message *C.char) {
	c := callbacksOf(handle)
	c.run(func() { c.log(LogLevel(level), C.GoString(message)) })
}

//export mmoptGoProgress
func mmoptGoProgress(
	handle C.uintptr_t, phase C.uint32_t, model C.size_t, steps C.uint64_t,
) C.uint32_t {
	c := callbacksOf(handle)
	var stopped error
	// SIZE_MAX, for all models, becomes -1.
	progress := Progress{Phase(phase), int(model), uint64(steps)}
	if !c.run(func() { stopped = c.progress(progress) }) {
		return 1
	}
	if stopped == nil {
		return 0
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.stopped == nil {
		c.stopped = stopped
	}
	return 1
}

//export mmoptGoRate
func mmoptGoRate(handle C.uintptr_t, model *C.char, step C.uint64_t, rate C.double) C.double {
	c := callbacksOf(handle)
	// Fails the step if it stays.
	result := math.NaN()
	c.run(func() { result = c.rate(C.GoString(model), uint64(step), float64(rate)) })
	return C.double(result)
}

// replace puts a callback in the place of another, unless the C library refuses. It is there before
// the call, as messages may come during it.
func replace[F any](place *F, f F, set func() *C.mmopt_error) *C.mmopt_error {
	old := *place
	*place = f
	refused := set()
	if refused != nil {
		*place = old
	}
	return refused
}

func (t *Trainer) handleIf(wanted bool) C.uintptr_t {
	if !wanted {
		return 0
	}
	return C.uintptr_t(t.handle)
}

// SetLogCallback sends messages up to a level to f; nil ends that. f runs on a goroutine of its own while
// the call that logs waits and must not use the trainer. Its panic goes on when that call, which is done by then,
// returns.
func (t *Trainer) SetLogCallback(level LogLevel, f func(LogLevel, string)) error {
	defer runtime.KeepAlive(t)
	return t.done(replace(&t.callbacks.log, f, func() *C.mmopt_error {
		return C.mmopt_go_set_log(t.c(), C.uint32_t(level), t.handleIf(f != nil))
	}))
}

// SetProgressCallback asks f before each pass and step; nil ends that. The error that it gives
// cancels the call, which fails with that error and has changed nothing. f runs on a goroutine of its own
// while the call waits,
// and must not use the trainer. Its panic cancels the call too, and goes on from there.
func (t *Trainer) SetProgressCallback(f func(Progress) error) error {
	defer runtime.KeepAlive(t)
	return t.done(replace(&t.callbacks.progress, f, func() *C.mmopt_error {
		return C.mmopt_go_set_progress(t.c(), t.handleIf(f != nil))
	}))
}

// SetRateCallback lets f decide each model's learning rate at each step, counted from 1; rate is
// what the schedule and the losses say; nil ends that. A result that is negative or not finite
// fails the step, and so does a panic, which goes on when the step returns.
func (t *Trainer) SetRateCallback(f func(model string, step uint64, rate float64) float64) error {
	defer runtime.KeepAlive(t)
	return t.done(replace(&t.callbacks.rate, f, func() *C.mmopt_error {
		return C.mmopt_go_set_rate_callback(t.c(), t.handleIf(f != nil))
	}))
}

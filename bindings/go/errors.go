package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Code says what went wrong, as far as a program can act on it.
type Code uint32

// The codes of the C library. Their numbers never change; new ones may come.
const (
	InvalidArgument    Code = C.MMOPT_CODE_INVALID_ARGUMENT
	NotFound           Code = C.MMOPT_CODE_NOT_FOUND
	IO                 Code = C.MMOPT_CODE_IO
	InvalidData        Code = C.MMOPT_CODE_INVALID_DATA
	Unsupported        Code = C.MMOPT_CODE_UNSUPPORTED
	Shape              Code = C.MMOPT_CODE_SHAPE
	RuntimeUnavailable Code = C.MMOPT_CODE_RUNTIME_UNAVAILABLE
	Runtime            Code = C.MMOPT_CODE_RUNTIME
	NonFinite          Code = C.MMOPT_CODE_NON_FINITE
	State              Code = C.MMOPT_CODE_STATE
	Cancelled          Code = C.MMOPT_CODE_CANCELLED
	Poisoned           Code = C.MMOPT_CODE_POISONED
	Internal           Code = C.MMOPT_CODE_INTERNAL
	OutOfMemory        Code = C.MMOPT_CODE_OUT_OF_MEMORY
	Communication      Code = C.MMOPT_CODE_COMMUNICATION
)

var codeNames = map[Code]string{
	0: "OK", InvalidArgument: "InvalidArgument", NotFound: "NotFound", IO: "IO",
	InvalidData: "InvalidData", Unsupported: "Unsupported", Shape: "Shape",
	RuntimeUnavailable: "RuntimeUnavailable", Runtime: "Runtime", NonFinite: "NonFinite",
	State: "State", Cancelled: "Cancelled", Poisoned: "Poisoned", Internal: "Internal",
	OutOfMemory: "OutOfMemory", Communication: "Communication",
}

// String is the name of a code.
func (c Code) String() string { return named("Code", c, codeNames) }

// named is the name of a constant; its type and number where it has none.
func named[T ~uint32](kind string, value T, names map[T]string) string {
	if name, ok := names[value]; ok {
		return name
	}
	return fmt.Sprintf("%s(%d)", kind, uint32(value))
}

// For errors.Is: each stands for all errors of its code.
var (
	ErrInvalidArgument    = error(&Error{Code: InvalidArgument})
	ErrNotFound           = error(&Error{Code: NotFound})
	ErrIO                 = error(&Error{Code: IO})
	ErrInvalidData        = error(&Error{Code: InvalidData})
	ErrUnsupported        = error(&Error{Code: Unsupported})
	ErrShape              = error(&Error{Code: Shape})
	ErrRuntimeUnavailable = error(&Error{Code: RuntimeUnavailable})
	ErrRuntime            = error(&Error{Code: Runtime})
	ErrNonFinite          = error(&Error{Code: NonFinite})
	ErrState              = error(&Error{Code: State})
	ErrCancelled          = error(&Error{Code: Cancelled})
	ErrPoisoned           = error(&Error{Code: Poisoned})
	ErrInternal           = error(&Error{Code: Internal})
	ErrOutOfMemory        = error(&Error{Code: OutOfMemory})
	ErrCommunication      = error(&Error{Code: Communication})
)

// Error is why a call failed.
type Error struct {
	// Code is what a program branches on.
	Code Code
	// Message is for people.
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return "mmopt: " + e.Code.String()
	}
	return "mmopt: " + e.Message
}

// Is makes errors.Is(err, ErrNotFound) true for every error of that code, and likewise
// errors.Is(err, fs.ErrNotExist).
func (e *Error) Is(target error) bool {
	if target == fs.ErrNotExist {
		return e.Code == NotFound
	}
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}

// take turns an owned error of the C library into a Go error.
func take(raw *C.mmopt_error) error {
	if raw == nil {
		return nil
	}
	defer C.mmopt_error_free(raw)
	return &Error{
		Code:    Code(C.mmopt_error_code(raw)),
		Message: C.GoString(C.mmopt_error_message(raw)),
	}
}

func invalid(format string, args ...any) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf(format, args...)}
}

// absent gives the errors of file systems the library's code too.
func absent(err error) error {
	if err == nil || errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w: %w", &Error{Code: NotFound, Message: "no such file"}, err)
}

// ended is why a context is done: its error, and its cause where that is another.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

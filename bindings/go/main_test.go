//go:build cgo

package mmopt

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain collects garbage without a pause while the tests run, when MMOPT_TEST_GC says so.
func TestMain(m *testing.M) {
	if os.Getenv("MMOPT_TEST_GC") != "" {
		go func() {
			for {
				runtime.GC()
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	os.Exit(m.Run())
}

// must ends the test on an error.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err, sentinel error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Message == "" || !errors.Is(err, sentinel) {
		t.Fatalf("error %v, wanted %v", err, sentinel)
	}
	if errors.Is(err, ErrPoisoned) || errors.Is(err, ErrInternal) {
		t.Fatalf("error %v", err)
	}
}

func equal[T comparable](t testing.TB, got, wanted T) {
	t.Helper()
	if got != wanted {
		t.Fatalf("got %v, wanted %v", got, wanted)
	}
}

func asError(err error, to **Error) bool { return errors.As(err, to) }

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

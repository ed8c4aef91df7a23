//go:build cgo

package mmopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

var _ io.Closer = (*Trainer)(nil)

// A gradient is unpinned, and can be collected, once another takes its place.
func TestAReplacedGradientIsLetGo(t *testing.T) {
	weights := []float32{0, 0}
	var gone [3]chan struct{}
	gradient := func(i int) []float32 {
		g := new([1 << 12]float32)
		gone[i] = make(chan struct{})
		runtime.AddCleanup(g, func(c chan struct{}) { close(c) }, gone[i])
		return g[:2]
	}
	collected := func(i int) bool {
		for range 50 {
			runtime.GC()
			select {
			case <-gone[i]:
				return true
			case <-time.After(time.Millisecond):
			}
		}
		return false
	}
	models := []HostModel{{Name: "m", Parameters: []HostParameter{{
		Name: "w", Shape: []int64{2}, Value: weights, Gradient: gradient(0),
	}}}}
	options := DefaultTrainerOptions(PresetIndependent)
	o := must(NewOptimizer(models, &options))(t)
	defer o.Close()
	models[0].Parameters[0].Gradient = nil
	ok(t, o.SetGradient(0, 0, gradient(1)))
	if !collected(0) {
		t.Error("the first gradient stays")
	}
	if collected(1) {
		t.Fatal("the gradient in use is gone")
	}
	// A refused one leaves the one in use where it is.
	wants(t, o.SetGradient(0, 0, make([]float32, 3)), ErrShape)
	if collected(1) {
		t.Fatal("the gradient in use is gone")
	}
	ok(t, o.SetGradientStrided(0, 0, gradient(2), []int64{1}))
	if !collected(1) {
		t.Error("the second gradient stays")
	}
	ok(t, o.SetGradient(0, 0, nil))
	if !collected(2) {
		t.Error("the third gradient stays")
	}
}

func TestCausesKeepTheContextsError(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(background)
	cancel(cause)
	_, err := j.ForwardBackward(ctx, batch)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Error(err)
	}
	late, stop := context.WithDeadlineCause(background, time.Now(), cause)
	defer stop()
	_, err = j.Evaluate(late, 0, batch)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cause) {
		t.Error(err)
	}
	plain, stop := context.WithCancel(background)
	stop()
	if _, err = j.Step(plain); err != context.Canceled {
		t.Error(err)
	}
}

func TestGoexitInACallbackLeavesTheTrainer(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	ok(t, j.SetProgressCallback(func(Progress) error { runtime.Goexit(); return nil }))
	returned := make(chan bool, 1)
	go func() {
		after := false
		defer func() { returned <- after }()
		_, _ = j.ForwardBackward(background, batch)
		after = true
	}()
	if <-returned {
		t.Error("the call went on after runtime.Goexit")
	}
	ok(t, j.SetProgressCallback(nil))
	must(j.ForwardBackward(background, batch))(t)
	ok(t, j.SetGradientCallback(func(GradientView) GradientAction { runtime.Goexit(); return 0 }))
	go func() {
		defer func() { returned <- false }()
		_, _ = j.Step(background)
	}()
	<-returned
	ok(t, j.SetGradientCallback(nil))
	must(j.Step(background))(t)
}

func TestMissingFilesAreBothKindsOfErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	_, file := ReadClassification(missing, nil)
	_, system := ReadClassificationFS(fstest.MapFS{}, "none", nil)
	_, graph := ModelFromONNXFS("m", fstest.MapFS{}, "none", nil)
	_, tokenizer := LoadTokenizerFS(fstest.MapFS{}, "none")
	for i, err := range []error{file, system, graph, tokenizer} {
		if !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d: %v", i, err)
		}
	}
	_, err := FromTexts(nil, nil, nil)
	if errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
}

func TestConstantsHaveNames(t *testing.T) {
	equal(t, fmt.Sprint(NotFound, PresetAdamW, SharePolicyAligned, CUDA, ShareRuleGated),
		"NotFound PresetAdamW SharePolicyAligned CUDA ShareRuleGated")
	equal(t, fmt.Sprint(Preset(77)), "Preset(77)")
	equal(t, (&Error{Code: Shape}).Error(), "mmopt: Shape")
}

// A batch whose pass was cancelled comes again after a resume with the state before it.
func TestACancelledBatchIsNotLost(t *testing.T) {
	j := setUp(t)
	ok(t, j.loader.SetEpoch(0))
	var state string
	var seen [][]int
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	for batch, err := range j.loader.Batches() {
		ok(t, err)
		if len(seen) == 2 {
			cancel()
		}
		examples := must(batch.Examples(0))(t)
		if _, err := j.ForwardBackward(ctx, batch); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			seen = append(seen, examples)
			break
		}
		must(j.Step(background))(t)
		seen = append(seen, examples)
		state = must(j.loader.State())(t)
	}
	ok(t, j.loader.Restore(state))
	next := must(j.loader.Next())(t)
	defer next.Close()
	equal(t, fmt.Sprint(must(next.Examples(0))(t)), fmt.Sprint(seen[2]))
}

// Documentation shows constructors with what they make.
func TestConstructorsStandUnderTheirTypes(t *testing.T) {
	output, err := exec.Command("go", "doc", "-short").Output()
	if err != nil {
		t.Skipf("not run: go doc: %v", err)
	}
	for _, line := range strings.Split(string(output), "\n") {
		for _, name := range []string{"ReadClassification(", "NewTrainer(", "LoadTokenizer(", "NewModel("} {
			if strings.HasPrefix(line, "func "+name) {
				t.Errorf("%s stands alone", name)
			}
		}
	}
}

// Without cgo the compiler says what is missing, and nothing else.
func TestWithoutCgoOneLineSaysSo(t *testing.T) {
	command := exec.Command("go", "build", ".")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := command.CombinedOutput()
	text := strings.TrimSpace(string(output))
	lines := strings.Split(text, "\n")
	if err == nil || len(lines) != 2 || !strings.Contains(lines[1], "mmopt_needs_cgo_and_a_C_compiler") {
		t.Fatalf("%v: %s", err, text)
	}
}

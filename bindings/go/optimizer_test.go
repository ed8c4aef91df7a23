//go:build cgo

package mmopt

import (
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// host is two models that pull their weights towards 1.
type host struct{ weights, gradients [2][]float32 }

func newHost() *host {
	h := &host{}
	for i := range 2 {
		h.weights[i], h.gradients[i] = make([]float32, 12), make([]float32, 12)
	}
	return h
}

func (h *host) describe() []HostModel {
	var models []HostModel
	for i, name := range []string{"one", "two"} {
		models = append(models, HostModel{Name: name, Parameters: []HostParameter{{
			Name:  "encoder.layer.0.attention.self.query.weight",
			Shape: []int64{3, 4}, Value: h.weights[i], Gradient: h.gradients[i],
		}}})
	}
	return models
}

func (h *host) train(t testing.TB, o *Optimizer, steps int) (loss float64) {
	for range steps {
		loss = 0
		for i := range 2 {
			one := 0.0
			for j, w := range h.weights[i] {
				h.gradients[i][j] = w - 1
				one += 0.5 * float64((w-1)*(w-1))
			}
			ok(t, o.Accumulate(i, one))
			loss += one
		}
		equal(t, must(o.Step())(t).Updated, 2)
	}
	return loss
}

func TestGradientMode(t *testing.T) {
	options := DefaultTrainerOptions(PresetDefault)
	options.LearningRate = 0.05
	h := newHost()
	o := must(NewOptimizer(h.describe(), &options))(t)
	defer o.Close()
	equal(t, o.Len(), 2)
	if plan := must(o.Plan())(t); !strings.Contains(plan, "attention query") {
		t.Fatal(plan)
	}
	equal(t, must(o.PlanJSON())(t)[0], '{')
	_, err := o.Step()
	wants(t, err, ErrState)
	first, last := h.train(t, o, 1), h.train(t, o, 100)
	if last > first/10 {
		t.Fatalf("losses %v and %v", first, last)
	}
	if must(o.Rates(1))(t).Effective <= 0 {
		t.Fatal("no rate")
	}
	dir := filepath.Join(t.TempDir(), "state")
	ok(t, o.SaveCheckpoint(dir))
	other := newHost()
	copy(other.weights[0], h.weights[0])
	copy(other.weights[1], h.weights[1])
	again := must(NewOptimizer(other.describe(), &options))(t)
	defer again.Close()
	ok(t, again.Resume(dir))
	equal(t, h.train(t, o, 5), other.train(t, again, 5))
	wants(t, again.Resume("/none"), ErrNotFound)
}

func TestGradientModeSettersAndRefusals(t *testing.T) {
	h := newHost()
	o := must(NewOptimizer(h.describe(), nil))(t)
	defer o.Close()
	ok(t, o.Accumulate(0, 1))
	ok(t, o.ZeroGrad())
	_, err := o.Step()
	wants(t, err, ErrState)
	ok(t, o.SetLearningRate(0.1))
	ok(t, o.SetModelWeight(0, 2))
	gradient := make(BF16, 12)
	for i := range gradient {
		gradient[i] = uint16(math.Float32bits(1) >> 16)
	}
	ok(t, o.SetGradient(0, 0, gradient))
	gradient = nil
	runtime.GC()
	ok(t, o.Accumulate(0, 1))
	must(o.Step())(t)
	if h.weights[0][0] >= 0 || h.weights[1][0] != 0 {
		t.Fatal(h.weights)
	}
	wants(t, o.SetGradient(0, 1, nil), ErrInvalidArgument)
	wants(t, o.SetGradient(0, 0, []float32{1}), ErrShape)
	wants(t, o.SetGradient(0, 0, []int64{1}), ErrInvalidArgument)
	wants(t, o.SetLearningRate(-1), ErrInvalidArgument)
	models := h.describe()
	models[0].Parameters[0].Shape = []int64{5, 5}
	_, err = NewOptimizer(models, nil)
	wants(t, err, ErrShape)
	models = h.describe()
	models[1].Name = "one"
	_, err = NewOptimizer(models, nil)
	wants(t, err, ErrInvalidArgument)
}

func TestGradientModeWeightsAndPlaces(t *testing.T) {
	h := newHost()
	options := DefaultTrainerOptions(PresetAdamW)
	equal(t, options.LearningRate, 1e-3)
	options.GradientAccumulationSteps, options.LearningRate = 2, 1
	options.OptionsJSON = `{"method": "sgd", "momentum": 0, "weight_decay": 0}`
	o := must(NewOptimizer(h.describe(), &options))(t)
	defer o.Close()
	h.gradients[0][0] = 1
	ok(t, o.AccumulateWeighted(0, 1, 9))
	h.gradients[0][0] = 11
	ok(t, o.AccumulateWeighted(0, 1, 1))
	wants(t, o.AccumulateWeighted(0, 1, -1), ErrInvalidArgument)
	must(o.Step())(t)
	if w := h.weights[0][0]; math.Abs(float64(w)+2) > 1e-6 {
		t.Fatal(w)
	}
	moved := make([]float32, 24)
	ok(t, o.SetData(0, 0, moved, []int64{8, 2}))
	h.gradients[0][0] = 1
	ok(t, o.Accumulate(0, 1))
	must(o.Step())(t)
	if moved[0] != -1 || moved[1] != 0 {
		t.Fatal(moved)
	}
	wants(t, o.SetData(0, 0, nil, nil), ErrInvalidArgument)
	wants(t, o.SetData(0, 0, make(BF16, 12), nil), ErrInvalidArgument)
	wants(t, o.SetData(0, 0, moved, nil), ErrShape)
	wants(t, o.SetData(0, 7, moved, nil), ErrInvalidArgument)
}

// What only the optimizer and the test hold stays where it is.
func TestGradientModeUnderGarbageCollection(t *testing.T) {
	for range 20 {
		h := newHost()
		o := must(NewOptimizer(h.describe(), nil))(t)
		for range 5 {
			runtime.GC()
			h.train(t, o, 1)
		}
		// Left to the clean-up, which unpins.
	}
	runtime.GC()
}

func TestGradientModeFeedback(t *testing.T) {
	options := DefaultTrainerOptions(PresetDefault)
	options.OptionsJSON = `{"max_loss_increase": 0.1}`
	h := newHost()
	_, err := NewOptimizer(h.describe(), &options)
	wants(t, err, ErrUnsupported)
	options.OptionsJSON = `{"weighting": "validation", "metrics_every": 1}`
	o := must(NewOptimizer(h.describe(), &options))(t)
	defer o.Close()
	_, err = o.MetricsJSON()
	wants(t, err, ErrState)
	wants(t, o.ReportValidation(nil), ErrInvalidArgument)
	ok(t, o.ReportValidation([]float64{0.9, 0.5}))
	h.train(t, o, 1)
	if rates := must(o.Rates(0))(t); rates.Weight < 0.55 {
		t.Fatalf("%+v", rates)
	}
	if metrics := must(o.MetricsJSON())(t); !strings.Contains(metrics, `"step":1`) {
		t.Fatal(metrics)
	}
}

func TestGradientModeCallbacks(t *testing.T) {
	h := newHost()
	options := DefaultTrainerOptions(PresetDefault)
	options.LearningRate = 0.05
	o := must(NewOptimizer(h.describe(), &options))(t)
	defer o.Close()
	seen := 0
	ok(t, o.SetGradientCallback(func(g GradientView) GradientAction {
		seen++
		equal(t, g.Name, "encoder.layer.0.attention.self.query.weight")
		equal(t, len(g.Gradient), 12)
		if g.ModelName == "one" {
			copy(g.Value, []float32{7})
			return GradientHandled
		}
		return UseGradient
	}))
	h.train(t, o, 1)
	if seen != 2 || h.weights[0][0] != 7 || h.weights[0][1] != 0 || h.weights[1][0] <= 0 {
		t.Fatal(seen, h.weights)
	}
	before := h.weights[1][0]
	ok(t, o.Accumulate(1, 1))
	ok(t, o.SetGradientCallback(func(GradientView) GradientAction { return StopStep }))
	_, err := o.Step()
	wants(t, err, ErrCancelled)
	ok(t, o.SetGradientCallback(func(GradientView) GradientAction { panic("gradient") }))
	equal(t, panics(func() { _, _ = o.Step() }), "gradient")
	ok(t, o.SetGradientCallback(nil))
	ok(t, o.SetRateCallback(func(string, uint64, float64) float64 { panic("rate") }))
	equal(t, panics(func() { _, _ = o.Step() }), "rate")
	ok(t, o.SetRateCallback(func(_ string, step uint64, rate float64) float64 {
		equal(t, step, 2)
		return 0
	}))
	must(o.Step())(t)
	equal(t, h.weights[1][0], before)
	ok(t, o.SetRateCallback(nil))
	h.train(t, o, 1)
	equal(t, o.Steps(), 3)
	if h.weights[1][0] == before {
		t.Fatal(before)
	}
	o.Close()
	wants(t, o.SetGradientCallback(nil), ErrInvalidArgument)
	wants(t, o.SetRateCallback(nil), ErrInvalidArgument)
}

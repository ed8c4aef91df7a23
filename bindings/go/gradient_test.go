//go:build cgo

package mmopt

import "testing"

func TestGradientCallback(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	bias := must(j.Parameter(0, "classifier.bias"))(t)
	before := must(bias.Value())(t).Float32s()[0]
	seen := 0
	ok(t, j.SetGradientCallback(func(g GradientView) GradientAction {
		seen++
		equal(t, len(g.Value), len(g.Gradient))
		if g.Model == 0 && g.Parameter == bias.Index {
			return GradientHandled
		}
		return UseGradient
	}))
	must(j.ForwardBackward(background, batch))(t)
	must(j.Step(background))(t)
	equal(t, must(bias.Value())(t).Float32s()[0], before)
	if seen < 10 {
		t.Fatalf("%d gradients", seen)
	}
	ok(t, j.SetGradientCallback(func(GradientView) GradientAction { return StopStep }))
	must(j.ForwardBackward(background, batch))(t)
	_, err := j.Step(background)
	wants(t, err, ErrCancelled)
	ok(t, j.SetGradientCallback(func(GradientView) GradientAction { panic("gradient") }))
	equal(t, panics(func() { _, _ = j.Step(background) }), "gradient")
	ok(t, j.SetGradientCallback(nil))
	must(j.Step(background))(t)

	value, gradient := must(bias.ValueDLPack(false))(t), must(bias.GradientDLPack(true))(t)
	j.Close()
	equal(t, len(must(FromDLPack("value", value))(t).Float32s()), 2)
	FreeDLPack(value)
	FreeDLPack(gradient)
}

func TestStridesAndManagedTensors(t *testing.T) {
	weights, gradients := make([]float32, 4), []float32{0, 1, 0, 0}
	models := []HostModel{{Name: "model", Parameters: []HostParameter{{
		Name: "weight", Shape: []int64{2, 2}, Value: weights, Gradient: gradients,
		GradientStrides: []int64{1, 2},
	}}}}
	options := DefaultTrainerOptions(PresetIndependent)
	options.LearningRate = 0.1
	o := must(NewOptimizer(models, &options))(t)
	defer o.Close()
	step := func() {
		t.Helper()
		ok(t, o.Accumulate(0, 1))
		must(o.Step())(t)
	}
	step()
	if weights[2] >= 0 || weights[1] != 0 {
		t.Fatal(weights)
	}
	ok(t, o.SetGradientStrided(0, 0, gradients, []int64{2, 1}))
	step()
	if weights[1] >= 0 {
		t.Fatal(weights)
	}
	wants(t, o.SetGradientStrided(0, 0, gradients, []int64{2, 2}), ErrShape)
	tensor := Tensor{Shape: []int64{2, 2}, Data: gradients}
	old := must(DLPackToUnversioned(must(tensor.ToDLPack())(t)))(t)
	managed := must(DLPackFromUnversioned(old))(t)
	p := must(HostParameterFromDLPackStrided("p", managed, nil))(t)
	equal(t, len(p.Value.([]float32)), 4)
	ok(t, o.SetGradientDLPack(0, 0, managed))
	ok(t, o.KeepDLPack(must(tensor.ToDLPack())(t)))
	step()
	wants(t, o.KeepDLPack(nil), ErrInvalidArgument)
}

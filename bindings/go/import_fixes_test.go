//go:build cgo

package mmopt

import (
	"math"
	"path/filepath"
	"testing"
)

func TestMendingAndReports(t *testing.T) {
	j := setUp(t)
	path := filepath.Join(t.TempDir(), "bert.onnx")
	ok(t, j.SaveONNX(0, path))
	model := must(ModelFromONNX("file", path, nil))(t)
	defer model.Close()
	ok(t, model.SetSharedInitializers(SplitSharedInitializers))
	ok(t, model.SetDuplicateWeights(TieAll))
	ok(t, model.SetRestoreNames(false))
	ok(t, model.FreezeRow("*word_embeddings.weight", 0))
	wants(t, model.SetDuplicateWeights(99), ErrInvalidArgument)
	wants(t, model.FreezeRow("*", -1), ErrInvalidArgument)
	if must(model.Report())(t) == "" {
		t.Fatal("no report")
	}
	equal(t, must(model.ReportJSON())(t)[0], '{')
	_ = must(j.ModelReport(0))(t)
	equal(t, must(j.ModelReportJSON(0))(t)[0], '{')

	tensors := must(j.batch(t).Tensors(0))(t)
	if found := must(j.FindNonFinite(background, 0, tensors))(t); found != nil {
		t.Fatalf("%+v", found)
	}
	inf := float32(math.Inf(1))
	p := must(j.Parameter(0, "classifier.bias"))(t)
	ok(t, p.SetValue([]float32{inf, inf}))
	found := must(j.FindNonFinite(background, 0, tensors))(t)
	if found == nil || found.Text == "" || found.JSON[0] != '{' {
		t.Fatalf("%+v", found)
	}

	graph := PrecomputedGradients{Loss: "loss", Gradients: []GradientOutput{{"weight", "weight_gradient"}}}
	ok(t, model.SetPrecomputedGradients(graph))
	fresh := must(NewModel("m", nil))(t)
	defer fresh.Close()
	wants(t, fresh.SetPrecomputedGradients(graph), ErrInvalidArgument)
}

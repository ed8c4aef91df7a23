//go:build cgo

package mmopt

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFitIsTheLoop(t *testing.T) {
	j := setUp(t)
	dir := t.TempDir()
	walk := DefaultLoaderOptions()
	walk.BatchSize, walk.Shuffle, walk.PadToMultipleOf = 32, false, 32
	heldOut := must(NewLoader(j.corpus, j.tokenizers, &walk))(t)
	defer heldOut.Close()
	options := DefaultFitOptions()
	options.Epochs, options.EvaluateEvery, options.KeepBest = 1, 3, true
	options.CheckpointDir, options.Resume = filepath.Join(dir, "checkpoints"), true
	options.JSONLPath = filepath.Join(dir, "log.jsonl")
	options.CSVPath = filepath.Join(dir, "log.csv")
	options.TensorboardDir, options.HistogramEvery = filepath.Join(dir, "events"), 5
	var steps, evaluations int
	see := func(p FitProgress) bool {
		if p.Evaluated {
			evaluations++
			return len(p.Scores) == 2 && !math.IsNaN(p.Monitored)
		}
		steps++
		return p.Scores == nil && len(p.Losses) == 2 && p.Losses[1] > 0 && p.Batches == 8
	}
	until := func(p FitProgress) bool { return see(p) && p.Step < 2 }
	evaluation := []*Loader{heldOut}
	result := must(j.Fit(background, j.loader, evaluation, &options, until))(t)
	equal(t, result.Reason, StopCancelled)
	equal(t, result.Steps, 2)
	result = must(j.Fit(background, j.loader, evaluation, &options, see))(t)
	equal(t, result.Reason, StopEpochs)
	equal(t, result.Steps, 8)
	equal(t, result.Epochs, 1)
	equal(t, steps, 8)
	equal(t, evaluations, 3)
	if !result.RestoredBest || len(result.Models) != 2 || result.Models[1].Step == 0 {
		t.Fatalf("%+v", result)
	}
	log := string(must(os.ReadFile(options.JSONLPath))(t))
	equal(t, strings.Count(log, `"type":"step"`), 8)
	equal(t, strings.Count(log, `"type":"evaluation"`), 3)
	equal(t, strings.Count(log, "\n"), 13)
	short := DefaultFitOptions()
	short.MaxSteps = 1
	result = must(j.Fit(background, j.loader, nil, &short, nil))(t)
	equal(t, result.Reason, StopMaxSteps)
	if !math.IsNaN(result.Best.Score) || !math.IsNaN(result.Models[0].Score) {
		t.Fatalf("%+v", result)
	}
	_, err := j.Fit(background, j.loader, nil, &FitOptions{}, nil)
	wants(t, err, ErrInvalidArgument)
	short.Monitor = "none"
	_, err = j.Fit(background, j.loader, evaluation, &short, nil)
	wants(t, err, ErrNotFound)
	gone, cancel := context.WithCancel(background)
	cancel()
	short.Monitor = ""
	if _, err = j.Fit(gone, j.loader, nil, &short, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	defer func() { equal(t, recover(), any("out of the callback")) }()
	_, _ = j.Fit(background, j.loader, nil, &short, func(FitProgress) bool {
		panic("out of the callback")
	})
}

func TestLearningRatesAreTried(t *testing.T) {
	j := setUp(t)
	options := DefaultFindLearningRateOptions()
	equal(t, options.Steps, 100)
	options.Steps, options.MinLR, options.Divergence = 5, 1e-4, 1e9
	place := must(j.loader.State())(t)
	curve := must(j.FindLearningRate(background, j.loader, &options))(t)
	equal(t, must(j.loader.State())(t), place)
	equal(t, j.Steps(), 0)
	if len(curve.Rates) < 3 || len(curve.Losses) != 2 || len(curve.Suggestions) != 2 {
		t.Fatalf("%+v", curve)
	}
	equal(t, len(curve.Losses[1]), len(curve.Rates))
	if curve.Losses[1][0] <= 0 || math.Abs(curve.Rates[1]/curve.Rates[0]-10) > 1e-6 {
		t.Fatalf("%+v", curve)
	}
	options.Steps = 1 << 40
	_, err := j.FindLearningRate(background, j.loader, &options)
	wants(t, err, ErrInvalidArgument)
	_, err = j.FindLearningRate(background, j.loader, &FindLearningRateOptions{})
	wants(t, err, ErrInvalidArgument)
}

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

func TestALoaderIsScored(t *testing.T) {
	j := setUp(t)
	sum, n, correct := 0.0, uint64(0), uint64(0)
	for batch, err := range j.loader.Batches() {
		ok(t, err)
		part := must(j.Evaluate(background, 1, batch))(t)
		sum += part.Loss * float64(part.Labels)
		n, correct = n+part.Labels, correct+part.Correct
	}
	scores := must(j.EvaluateLoader(background, 1, j.loader, nil))(t)
	equal(t, scores.Labels, n)
	equal(t, scores.Correct, correct)
	equal(t, scores.Examples, 64)
	equal(t, scores.Score, float64(correct)/float64(n))
	if math.Abs(scores.Loss-sum/float64(n)) > 1e-6 || !math.IsNaN(scores.AnswerF1) {
		t.Fatalf("%+v", scores)
	}
	equal(t, uint64(scores.Confusion[0][0]+scores.Confusion[1][1]), correct)
	equal(t, scores.Classes[1].Name, "1")
	equal(t, scores.Classes[1].Support, scores.Confusion[1][0]+scores.Confusion[1][1])
	_, err := j.EvaluateLoader(background, 2, j.loader, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = j.EvaluateLoader(background, 0, j.loader, &EvaluateOptions{})
	wants(t, err, ErrInvalidArgument)
	options := DefaultEvaluateOptions()
	options.NBest = -1
	_, err = j.EvaluateLoader(background, 0, j.loader, &options)
	wants(t, err, ErrInvalidArgument)
	gone, cancel := context.WithCancel(background)
	cancel()
	if _, err = j.EvaluateLoader(gone, 0, j.loader, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestEntitiesAreScored(t *testing.T) {
	if os.Getenv("MMOPT_ORT_LIB") == "" {
		t.Skip("not run: no ONNX Runtime, MMOPT_ORT_LIB is not set")
	}
	path := filepath.Join(t.TempDir(), "tagged.txt")
	sentence := "Anna B-PER\nCurie I-PER\nlives O\nin O\nParis B-LOC\n\n"
	ok(t, os.WriteFile(path, []byte(strings.Repeat(sentence, 8)), 0o600))
	corpus := must(ReadTokenClassification(path, nil))(t)
	defer corpus.Close()
	words := DefaultTokenizerOptions()
	words.VocabSize, words.ModelMaxLength = 400, 32
	tokenizer := must(TrainTokenizer(corpus, &words))(t)
	defer tokenizer.Close()
	sizes := DefaultModelConfig()
	sizes.Layers, sizes.HiddenSize, sizes.Heads = 1, 16, 2
	model := must(ModelForCorpus("bert", &sizes, tokenizer, corpus))(t)
	defer model.Close()
	loader := must(NewLoader(corpus, []*Tokenizer{tokenizer}, nil))(t)
	defer loader.Close()
	options := DefaultTrainerOptions(PresetDefault)
	options.LearningRate = 1e-2
	trainer := must(NewTrainer([]*Model{model}, &options))(t)
	defer trainer.Close()
	for range 60 {
		for batch, err := range loader.Batches() {
			ok(t, err)
			must(trainer.ForwardBackward(background, batch))(t)
			must(trainer.Step(background))(t)
		}
	}
	// One sentence is learnt by heart.
	scores := must(trainer.EvaluateLoader(background, 0, loader, nil))(t)
	equal(t, scores.EntityF1, 1)
	equal(t, scores.StrictEntityF1, 1)
	equal(t, scores.Score, 1)
	equal(t, scores.EntityTypes["PER"].Support, 8)
	equal(t, scores.StrictEntityTypes["LOC"].NCorrect, 8)
	equal(t, scores.UnseenWords, 0)
}

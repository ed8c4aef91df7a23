//go:build cgo

package mmopt

import (
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func TestPublishedModelsFitACorpus(t *testing.T) {
	j := setUp(t)
	folder := filepath.Join(t.TempDir(), "bert")
	ok(t, j.SaveModel(0, folder))
	entities := must(SyntheticEntities(9, 1))(t)
	model := must(ModelPretrainedForCorpus("next", folder, j.tokenizers[0], entities))(t)
	equal(t, must(model.LabelName(1))(t), "B-PER")
	questions := must(SyntheticQuestions(9, 1))(t)
	equal(t, must(questions.PlainText())(t).Len(), 18)
}

func TestTextsArePredicted(t *testing.T) {
	j := setUp(t)
	folder := filepath.Join(t.TempDir(), "bert")
	ok(t, j.SaveModel(0, folder))
	_, err := LoadPredictor(folder, nil)
	wants(t, err, ErrNotFound)
	ok(t, j.tokenizers[0].Save(folder))
	predictor := must(LoadPredictor(folder, &PredictorOptions{Threads: 1}))(t)
	defer predictor.Close()
	texts := []string{"a splendid film", "dull", "a fine story"}
	a := must(j.Predict(background, 0, j.tokenizers[0], texts, nil, nil))(t)
	b := must(predictor.Predict(texts, nil, nil))(t)
	equal(t, len(a), 3)
	for i := range a {
		equal(t, len(a[i]), 2)
		equal(t, a[i][0], b[i][0])
		if math.Abs(a[i][0].Probability+a[i][1].Probability-1) > 1e-12 || a[i][0].Score < a[i][1].Score {
			t.Fatalf("%+v", a[i])
		}
	}
	pairs := must(predictor.Predict(texts, texts, nil))(t)
	if pairs[0][0].Score == b[0][0].Score {
		t.Fatal("the pairs were not read")
	}
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			c, err := predictor.Predict(texts, nil, nil)
			if err != nil || !slices.EqualFunc(b, c, slices.Equal[[]Prediction]) {
				t.Error(err, c)
			}
		}()
	}
	all.Wait()
	_, err = predictor.Predict(texts, texts[:1], nil)
	wants(t, err, ErrInvalidArgument)
	_, err = predictor.Predict(texts, nil, &PredictOptions{})
	wants(t, err, ErrInvalidArgument)
	options := DefaultPredictOptions()
	options.MaxLength = 2
	_, err = j.Predict(background, 0, j.tokenizers[0], texts, nil, &options)
	wants(t, err, ErrInvalidArgument)
	equal(t, len(must(predictor.Predict(nil, nil, nil))(t)), 0)
	predictor.Close()
	_, err = predictor.Predict(texts, nil, nil)
	wants(t, err, ErrInvalidArgument)
}

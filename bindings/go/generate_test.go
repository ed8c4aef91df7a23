//go:build cgo

package mmopt

import (
	"path/filepath"
	"testing"
)

func TestTextIsGenerated(t *testing.T) {
	sentences := must(Synthetic(40, 1, 0))(t)
	plain := must(sentences.PlainText())(t)
	words := DefaultTokenizerOptions()
	words.Architecture, words.VocabSize, words.ModelMaxLength = GPT2, 300, 24
	tokenizer := must(TrainTokenizer(plain, &words))(t)
	sizes := DefaultModelConfig()
	sizes.Architecture, sizes.Layers, sizes.HiddenSize = GPT2, 1, 16
	model := must(ModelForCorpus("writer", &sizes, tokenizer, plain))(t)
	trainer := must(NewTrainer([]*Model{model}, nil))(t)
	defer trainer.Close()
	loader := must(NewLoader(plain, []*Tokenizer{tokenizer}, nil))(t)
	stats := must(loader.EncodingStats(0))(t)
	equal(t, stats.Examples, 40)
	equal(t, stats.UnseenWords+stats.UnplacedAnswers, 0)

	options := DefaultGenerateOptions()
	options.MaxNewTokens, options.DoSample, options.Temperature, options.TopK = 5, true, 2, 40
	prompts := []string{"the film", "what a"}
	a := must(trainer.Generate(background, 0, tokenizer, prompts, &options))(t)
	equal(t, len(a), 2)
	if a[0].Label != "length" && a[0].Label != "stop" || a[0].Score >= 0 {
		t.Fatalf("%+v", a[0])
	}
	folder := filepath.Join(t.TempDir(), "writer")
	ok(t, trainer.SaveModel(0, folder))
	ok(t, tokenizer.Save(folder))
	predictor := must(LoadPredictor(folder, nil))(t)
	defer predictor.Close()
	b := must(predictor.Generate(prompts, &options))(t)
	equal(t, b[1], a[1])
	options.TopP = 2
	_, err := predictor.Generate(prompts, &options)
	wants(t, err, ErrInvalidArgument)
	_, err = predictor.Generate(prompts, &GenerateOptions{})
	wants(t, err, ErrInvalidArgument)
}

//go:build cgo

package mmopt_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mmopt"
)

func ExampleTokenizer_Encode() {
	corpus, err := mmopt.FromTexts([]string{"low lower lowest", "low low lower"}, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer corpus.Close()
	options := mmopt.DefaultTokenizerOptions()
	options.VocabSize = 60
	tokenizer, err := mmopt.TrainTokenizer(corpus, &options)
	if err != nil {
		log.Fatal(err)
	}
	defer tokenizer.Close()
	encoding, err := tokenizer.Encode("low lower", 0)
	if err != nil {
		log.Fatal(err)
	}
	text, err := tokenizer.Decode(encoding.IDs, true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(encoding.IDs), text)
	// Output: 4 low lower
}

// The host computes gradients; the library updates the weights where they lie.
func ExampleOptimizer() {
	weights, gradients := []float32{0, 0, 0, 0}, make([]float32, 4)
	models := []mmopt.HostModel{{Name: "model", Parameters: []mmopt.HostParameter{{
		Name: "weight", Shape: []int64{2, 2}, Value: weights, Gradient: gradients,
	}}}}
	options := mmopt.DefaultTrainerOptions(mmopt.PresetIndependent)
	options.LearningRate, options.WeightDecay = 0.1, 0
	optimizer, err := mmopt.NewOptimizer(models, &options)
	if err != nil {
		log.Fatal(err)
	}
	defer optimizer.Close()
	for range 200 {
		loss := 0.0
		for i, w := range weights {
			gradients[i] = w - 3
			loss += float64(gradients[i]*gradients[i]) / 2
		}
		if err := optimizer.Accumulate(0, loss); err != nil {
			log.Fatal(err)
		}
		if _, err := optimizer.Step(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%.1f\n", weights)
	// Output: [3.0 3.0 3.0 3.0]
}

func ExampleError() {
	_, err := mmopt.ReadClassification("missing.tsv", nil)
	var failed *mmopt.Error
	fmt.Println(errors.Is(err, mmopt.ErrNotFound), errors.As(err, &failed) && failed.Code == mmopt.NotFound)
	// Output: true true
}

// small makes a corpus of generated sentences, and a BERT with its tokenizer for it.
func small() (*mmopt.Corpus, *mmopt.Tokenizer, *mmopt.Model, error) {
	corpus, err := mmopt.Synthetic(64, 1, 0)
	if err != nil {
		return nil, nil, nil, err
	}
	tokens := mmopt.DefaultTokenizerOptions()
	tokens.VocabSize, tokens.ModelMaxLength = 300, 32
	tokenizer, err := mmopt.TrainTokenizer(corpus, &tokens)
	if err != nil {
		return nil, nil, nil, err
	}
	config := mmopt.DefaultModelConfig()
	config.Layers, config.HiddenSize, config.Heads = 1, 16, 2
	model, err := mmopt.ModelForCorpus("bert", &config, tokenizer, corpus)
	return corpus, tokenizer, model, err
}

// A training loop that can be interrupted: the checkpoint says where the loader stood at the last
// step, so that a batch whose pass was cancelled is learnt from after the resume.
func ExampleTrainer() {
	if os.Getenv("MMOPT_ORT_LIB") == "" {
		fmt.Println("learnt from 64 examples")
		return
	}
	corpus, tokenizer, model, err := small()
	if err != nil {
		log.Fatal(err)
	}
	defer corpus.Close()
	loader, err := mmopt.NewLoader(corpus, []*mmopt.Tokenizer{tokenizer}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer loader.Close()
	trainer, err := mmopt.NewTrainer([]*mmopt.Model{model}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer trainer.Close()
	folder, err := os.MkdirTemp("", "mmopt-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	checkpoint := filepath.Join(folder, "checkpoint")

	ctx := context.Background() // of signal.NotifyContext in a program
	examples := 0
	state, err := loader.State()
	if err != nil {
		log.Fatal(err)
	}
	for batch, err := range loader.Batches() {
		if err != nil {
			log.Fatal(err)
		}
		if _, err = trainer.ForwardBackward(ctx, batch); err == nil {
			// A pass that counts is followed by its step, so that a resumed run has the same bits.
			_, err = trainer.Step(context.WithoutCancel(ctx))
		}
		if errors.Is(err, context.Canceled) {
			log.Fatal(errors.Join(err, trainer.ZeroGrad(), trainer.SaveCheckpoint(checkpoint, state)))
		} else if err != nil {
			log.Fatal(err)
		}
		rows, err := batch.Examples(0)
		if err != nil {
			log.Fatal(err)
		}
		examples += len(rows)
		if state, err = loader.State(); err != nil {
			log.Fatal(err)
		}
	}
	// Later, with a trainer and a loader made in the same way:
	if err := trainer.SaveCheckpoint(checkpoint, state); err != nil {
		log.Fatal(err)
	}
	if state, err = trainer.Resume(checkpoint); err == nil {
		err = loader.Restore(state)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("learnt from", examples, "examples")
	// Output: learnt from 64 examples
}

// The scores of a model, and what it says about texts.
func ExampleTrainer_Predict() {
	if os.Getenv("MMOPT_ORT_LIB") == "" {
		fmt.Println("64 examples, 2 classes of 1 text")
		return
	}
	corpus, tokenizer, model, err := small()
	if err != nil {
		log.Fatal(err)
	}
	defer corpus.Close()
	heldOut, err := mmopt.NewLoader(corpus, []*mmopt.Tokenizer{tokenizer}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer heldOut.Close()
	trainer, err := mmopt.NewTrainer([]*mmopt.Model{model}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer trainer.Close()
	ctx := context.Background()
	scores, err := trainer.EvaluateLoader(ctx, 0, heldOut, nil)
	if err != nil {
		log.Fatal(err)
	}
	texts := []string{"a splendid film"}
	predictions, err := trainer.Predict(ctx, 0, tokenizer, texts, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(scores.Examples, "examples,", len(predictions[0]), "classes of", len(texts), "text")
	// Output: 64 examples, 2 classes of 1 text
}

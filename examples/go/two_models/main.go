// two_models trains a BERT and a GPT-2 together on the labelled sentences of a file (one a line:
// text TAB label), or on generated ones, and stops cleanly on an interrupt.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"mmopt"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func readCorpus() (*mmopt.Corpus, error) {
	if len(os.Args) > 1 {
		return mmopt.ReadClassification(os.Args[1], nil)
	}
	return mmopt.Synthetic(512, 1, 0)
}

func run(ctx context.Context) error {
	corpus, err := readCorpus()
	if err != nil {
		return err
	}
	defer corpus.Close()
	var tokenizers []*mmopt.Tokenizer
	var models []*mmopt.Model
	for _, a := range []mmopt.Architecture{mmopt.BERT, mmopt.GPT2} {
		words := mmopt.DefaultTokenizerOptions()
		words.Architecture, words.VocabSize, words.ModelMaxLength = a, 2000, 64
		tokenizer, err := mmopt.TrainTokenizer(corpus, &words)
		if err != nil {
			return err
		}
		defer tokenizer.Close()
		sizes := mmopt.DefaultModelConfig()
		sizes.Architecture, sizes.HiddenSize = a, 64
		model, err := mmopt.ModelForCorpus(a.String(), &sizes, tokenizer, corpus)
		if err != nil {
			return err
		}
		defer model.Close()
		tokenizers, models = append(tokenizers, tokenizer), append(models, model)
	}
	loader, err := mmopt.NewLoader(corpus, tokenizers, nil)
	if err != nil {
		return err
	}
	defer loader.Close()
	options := mmopt.DefaultTrainerOptions(mmopt.PresetDefault)
	options.LearningRate = 1e-3
	options.TotalSteps = uint64(loader.Len()) // mutual learning sets in over half of them
	options.LRSchedule = mmopt.LRScheduleLinear
	trainer, err := mmopt.NewTrainer(models, &options)
	if err != nil {
		return err
	}
	defer trainer.Close()
	return train(ctx, trainer, loader)
}

func train(ctx context.Context, trainer *mmopt.Trainer, loader *mmopt.Loader) error {
	var results []mmopt.TrainResult
	for batch, err := range loader.Batches() {
		if err != nil {
			return err
		}
		if results, err = trainer.ForwardBackward(ctx, batch); err != nil {
			return err
		}
		if _, err = trainer.Step(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("two_models: bert %.3f gpt2 %.3f\n", results[0].Loss, results[1].Loss)
	return nil
}

// questions trains a BERT to answer questions about contexts: those of a file (SQuAD's form, or an
// object a line), or generated ones.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"mmopt"
)

// must ends the program on an error.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func readCorpus() *mmopt.Corpus {
	if len(os.Args) > 1 {
		return must(mmopt.ReadQuestionAnswering(os.Args[1]))
	}
	return must(mmopt.SyntheticQuestions(400, 1))
}

func main() {
	ctx := context.Background()
	train, eval, err := readCorpus().Split(0.1, 1)
	if err != nil {
		log.Fatal(err)
	}
	tokenizer := must(mmopt.TrainTokenizer(train, nil))
	sizes := mmopt.DefaultModelConfig()
	sizes.HiddenSize, sizes.Dropout = 32, 0
	model := must(mmopt.ModelForCorpus("bert", &sizes, tokenizer, train))

	walk := mmopt.DefaultLoaderOptions()
	walk.MaxLength = 128
	loader := must(mmopt.NewLoader(train, []*mmopt.Tokenizer{tokenizer}, &walk))
	walk.AllWindows = true // scores are over all parts of a long context
	evalLoader := must(mmopt.NewLoader(eval, []*mmopt.Tokenizer{tokenizer}, &walk))

	options := mmopt.DefaultTrainerOptions(mmopt.PresetDefault)
	options.LearningRate = 5e-3
	trainer := must(mmopt.NewTrainer([]*mmopt.Model{model}, &options))
	for range 3 {
		for batch, err := range loader.Batches() {
			must(trainer.ForwardBackward(ctx, must(batch, err)))
			must(trainer.Step(ctx))
		}
	}
	scores := must(trainer.EvaluateLoader(ctx, 0, evalLoader, nil))
	fmt.Printf("questions: exact match %.1f f1 %.1f\n", scores.ExactMatch, scores.AnswerF1)
}

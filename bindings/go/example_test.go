//go:build cgo

package mmopt_test

import (
	"errors"
	"fmt"
	"log"

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

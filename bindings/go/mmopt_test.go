package mmopt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// must ends the test on an error.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func wantCode(t *testing.T, err error, code Code) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Message == "" {
		t.Fatalf("error %v, wanted code %d", err, code)
	}
	if !errors.Is(err, &Error{Code: code}) {
		t.Fatalf("errors.Is does not find code %d", code)
	}
}

func TestErrors(t *testing.T) {
	_, err := ReadClassification("/nonexistent.tsv", nil)
	wantCode(t, err, NotFound)
	_, err = ParseArchitecture("yak")
	wantCode(t, err, NotFound)
	_, err = FromTexts([]string{"a"}, []string{"x", "y"})
	wantCode(t, err, InvalidArgument)
	_, err = LoadTokenizer("/nonexistent")
	wantCode(t, err, NotFound)
	_, err = NewTrainer(nil, TrainerOptions{})
	wantCode(t, err, InvalidArgument)
}

func TestTextFromSeveralGoroutines(t *testing.T) {
	corpus := must(FromTexts([]string{"one two", "two three", "three one"}, []string{"a", "b", "a"}))(t)
	defer corpus.Close()
	if corpus.Len() != 3 || len(corpus.Labels()) != 2 || math.Abs(corpus.MajorityShare()-2.0/3) > 1e-9 {
		t.Fatalf("%d examples, labels %v", corpus.Len(), corpus.Labels())
	}
	tokenizer := must(TrainTokenizer(corpus, TokenizerOptions{VocabSize: 100}))(t)
	defer tokenizer.Close()
	want := fmt.Sprint(must(tokenizer.Encode("one three", 0))(t))
	var group sync.WaitGroup
	for range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 200 {
				ids, err := tokenizer.Encode("one three", 0)
				if err != nil || fmt.Sprint(ids) != want {
					t.Errorf("%v %v", ids, err)
				}
			}
		}()
	}
	group.Wait()
}

func TestCloseTwiceAndCleanUp(t *testing.T) {
	for range 50 {
		corpus := must(Synthetic(10, 1, 0))(t)
		if corpus.Len()%2 == 0 {
			runtime.GC()
		}
		corpus.Close()
		corpus.Close()
		if corpus.Len() != 0 {
			t.Fatal("a closed corpus has examples")
		}
		// This one is left to the clean-up.
		_ = must(Synthetic(10, 2, 0))(t)
	}
	runtime.GC()
}

// setUp makes two tiny models and a loader over generated sentences.
func setUp(t *testing.T) (*Trainer, *Loader, []*Tokenizer) {
	if os.Getenv("MMOPT_ORT_LIB") == "" {
		t.Skip("not run: no ONNX Runtime")
	}
	corpus := must(Synthetic(64, 1, 0))(t)
	var tokenizers []*Tokenizer
	var models []*Model
	for _, a := range []Architecture{BERT, GPT2} {
		options := TokenizerOptions{Architecture: a, VocabSize: 400, MaxLength: 32}
		tokenizer := must(TrainTokenizer(corpus, options))(t)
		sizes := Sizes{Architecture: a, Layers: 1, Hidden: 16, Heads: 2}
		model := must(ModelForCorpus(a.String(), sizes, tokenizer, corpus))(t)
		defer model.Close()
		tokenizers, models = append(tokenizers, tokenizer), append(models, model)
	}
	loader := must(NewLoader(corpus, tokenizers, LoaderOptions{BatchSize: 8, Seed: 3}))(t)
	trainer := must(NewTrainer(models, TrainerOptions{LearningRate: 3e-3}))(t)
	t.Cleanup(trainer.Close)
	t.Cleanup(loader.Close)
	return trainer, loader, tokenizers
}

func nextBatch(t *testing.T, loader *Loader) *Batch {
	batch := must(loader.Next())(t)
	if batch == nil {
		batch = must(loader.Next())(t)
	}
	return batch
}

func TestTraining(t *testing.T) {
	trainer, loader, tokenizers := setUp(t)
	ctx := context.Background()
	var first, last float64
	for step := range 40 {
		batch := nextBatch(t, loader)
		outcomes := must(trainer.ForwardBackward(ctx, batch))(t)
		report := must(trainer.Step())(t)
		if report.Updated != 2 || outcomes[0].Labels != 8 {
			t.Fatalf("%+v %+v", report, outcomes)
		}
		if step < 8 {
			first += outcomes[0].Loss + outcomes[1].Loss
		} else if step >= 32 {
			last += outcomes[0].Loss + outcomes[1].Loss
		}
		batch.Close()
	}
	if last >= first {
		t.Fatalf("losses rose from %v to %v", first, last)
	}
	_, err := trainer.Step()
	wantCode(t, err, State)

	dir := t.TempDir()
	state := must(loader.State())(t)
	if err := trainer.Checkpoint(filepath.Join(dir, "c"), state); err != nil {
		t.Fatal(err)
	}
	if got := must(trainer.Resume(filepath.Join(dir, "c")))(t); got != state {
		t.Fatalf("kept %q, not %q", got, state)
	}
	if err := trainer.SaveModel(0, filepath.Join(dir, "bert")); err != nil {
		t.Fatal(err)
	}
	model := must(ModelFromDirectory("again", filepath.Join(dir, "bert")))(t)
	defer model.Close()
	again := must(NewTrainer([]*Model{model}, TrainerOptions{}))(t)
	defer again.Close()
	texts := must(EncodeBatch(tokenizers[:1], []string{"a splendid film", "dull"}))(t)
	defer texts.Close()
	a := must(trainer.Evaluate(ctx, 0, texts))(t)
	b := must(again.Evaluate(ctx, 0, texts))(t)
	if fmt.Sprint(a.Logits) != fmt.Sprint(b.Logits) || len(a.Logits) != 2 || !math.IsNaN(a.Loss) {
		t.Fatalf("%v and %v", a, b)
	}
}

func TestContextCancels(t *testing.T) {
	trainer, loader, _ := setUp(t)
	batch := nextBatch(t, loader)
	defer batch.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := trainer.ForwardBackward(ctx, batch); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	// Cancelled at some moment of a run or after it; the trainer works afterwards either way.
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		_, err := trainer.ForwardBackward(ctx, batch)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if err := trainer.ZeroGrad(); err != nil {
		t.Fatal(err)
	}
	must(trainer.ForwardBackward(context.Background(), batch))(t)
	must(trainer.Step())(t)
}

func ExampleTokenizer_Encode() {
	corpus, _ := FromTexts([]string{"low lower lowest", "low low lower"}, nil)
	defer corpus.Close()
	tokenizer, _ := TrainTokenizer(corpus, TokenizerOptions{Architecture: BERT, VocabSize: 60})
	defer tokenizer.Close()
	ids, _ := tokenizer.Encode("low lower", 0)
	fmt.Println(len(ids))
	// Output: 4
}

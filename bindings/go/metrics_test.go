//go:build cgo

package mmopt

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func near(t *testing.T, got, wanted float64) {
	t.Helper()
	if math.Abs(got-wanted) > 1e-12 {
		t.Fatalf("got %v, wanted %v", got, wanted)
	}
}

// The expected numbers are those of scikit-learn, seqeval and SQuAD's evaluation script.
func TestMetrics(t *testing.T) {
	predictions, labels := []int64{2, 0, 1, 1, 2, 0, 3}, []int64{2, 0, 0, 1, -100, 2, 2}
	near(t, must(Accuracy(predictions, labels))(t), 0.5)
	near(t, must(MacroF1(predictions, labels))(t), 0.41666666666666663)
	_, err := Accuracy(predictions[:1], labels)
	wants(t, err, ErrInvalidArgument)
	_, err = MacroF1(predictions[:1], labels)
	wants(t, err, ErrInvalidArgument)

	tags := []string{"O", "B-PER", "I-PER", "B-ORG", "I-ORG"}
	found := []int64{0, 1, 2, 0, 3, 4, 0, 0, 3, 4, 4, 0, 1, 0, 0, 0, 0, 2, 2, 0, 4, 0, 0, 1}
	right := []int64{
		-100, 1, 2, 0, 3, 0, 0, -100, 3, 4, 4, 0, 1, 2, 0, -100, 0, 1, 2, 0, 3, 0, 2, -100,
	}
	scores := must(Entities(found, right, 8, tags))(t)
	near(t, scores.F1, 0.6153846153846153)
	near(t, scores.Accuracy, 0.75)
	equal(t, scores.NCorrect, 4)
	equal(t, len(scores.ByType), 2)
	near(t, scores.ByType["PER"].F1, 0.5714285714285715)
	equal(t, scores.ByType["ORG"].Support, 3)
	strict := must(StrictEntities(found, right, 8, tags))(t)
	if strict.Support >= scores.Support {
		t.Fatalf("%+v", strict)
	}
	equal(t, must(ConfusionMatrix(predictions, labels, 4))(t)[2][3], 1)
	_, err = ConfusionMatrix(predictions, labels, 3)
	wants(t, err, ErrInvalidArgument)
	equal(t, must(ScoresConfusionMatrix(`{"confusion_matrix": [[3]]}`, 1))(t)[0][0], 3)
	numbers := must(Regression([]float64{1, 2, 2, 4}, []float64{1, 3, 2, 4}))(t)
	near(t, numbers.MSE, 0.25)
	near(t, numbers.Spearman, 0.9486832980505138)
	_, err = Regression([]float64{1}, nil)
	wants(t, err, ErrInvalidArgument)
	near(t, must(Perplexity([]float64{2, 2}, []uint64{1, 5}))(t)/math.Exp(2), 1)
	_, err = Perplexity([]float64{1}, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = Entities(found, right, 5, tags)
	wants(t, err, ErrInvalidArgument)
	_, err = Entities(found, right, 8, tags[:2])
	wants(t, err, ErrInvalidArgument)

	exactMatch, f1, err := Answers(
		[]string{"The Eiffel Tower!", "in  May 1907", "a quick brown fox", "something", ""},
		[][]string{
			{"eiffel tower"}, {"May 1907", "1907"}, {"the brown fox jumps", "quick fox"}, nil, nil,
		},
	)
	ok(t, err)
	near(t, exactMatch, 40)
	near(t, f1, 72)
	_, _, err = Answers([]string{"a"}, nil)
	wants(t, err, ErrInvalidArgument)
}

func TestBestAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.jsonl")
	ok(t, os.WriteFile(path, []byte(`{"context": "born in May", "question": "when?", `+
		`"answers": [{"text": "May", "answer_start": 8}]}`), 0o600))
	corpus := must(ReadQuestionAnswering(path))(t)
	defer corpus.Close()
	options := DefaultTokenizerOptions()
	options.MinFrequency = 1
	tokenizer := must(TrainTokenizer(corpus, &options))(t)
	defer tokenizer.Close()
	loader := must(NewLoader(corpus, []*Tokenizer{tokenizer}, nil))(t)
	defer loader.Close()
	batch := must(loader.Next())(t)
	defer batch.Close()
	first := map[string]int64{}
	length := int64(0)
	for _, tensor := range must(batch.Tensors(0))(t) {
		if data, isInt := tensor.Data.([]int64); isInt {
			first[tensor.Name] = data[0]
		}
		if tensor.Name == "input_ids" {
			length = tensor.Shape[1]
		}
	}
	starts, ends := make([]float32, length), make([]float32, length)
	starts[first["start_positions"]], ends[first["end_positions"]] = 1, 1
	best, found, err := batch.BestAnswer(0, 0, starts, ends, 30)
	ok(t, err)
	equal(t, found, true)
	equal(t, best, Answer{"May", 8, 11, 2})
	_, _, err = batch.BestAnswer(0, 1, starts, ends, 30)
	wants(t, err, ErrInvalidArgument)
	_, _, err = batch.BestAnswer(0, 0, starts, ends[1:], 30)
	wants(t, err, ErrInvalidArgument)
	_, _, err = batch.BestAnswer(0, 0, starts, ends, -1)
	wants(t, err, ErrInvalidArgument)
}

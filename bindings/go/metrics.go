package mmopt

// #include <mmopt.h>
import "C"

import (
	"encoding/json"
	"runtime"
	"unsafe"
)

// Accuracy is the fraction of predicted classes that equal their label, 0 to 1. Entries whose label
// is negative, such as -100, are left out.
func Accuracy(predictions, labels []int64) (float64, error) {
	var a arena
	defer a.free()
	p, l, n := a.pairs(predictions, labels)
	var value C.double
	err := a.call(func() *C.mmopt_error { return C.mmopt_metrics_accuracy(p, l, n, &value) })
	return float64(value), err
}

// MacroF1 is the unweighted mean of the F1 of each class that occurs among labels or predictions, 0
// to 1. Entries whose label is negative are left out.
func MacroF1(predictions, labels []int64) (float64, error) {
	var a arena
	defer a.free()
	p, l, n := a.pairs(predictions, labels)
	var value C.double
	err := a.call(func() *C.mmopt_error { return C.mmopt_metrics_macro_f1(p, l, n, &value) })
	return float64(value), err
}

// pairs are the addresses and the length of predictions and their labels.
func (a *arena) pairs(predictions, labels []int64) (p, l *C.int64_t, n C.size_t) {
	if len(predictions) != len(labels) {
		a.fail(invalid("%d predictions for %d labels", len(predictions), len(labels)))
	}
	p = (*C.int64_t)(pinnedArray(a, predictions))
	l = (*C.int64_t)(pinnedArray(a, labels))
	return p, l, C.size_t(len(labels))
}

// EntityScore has precision, recall and F1 of named entities, and the counts behind them.
type EntityScore struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	// Support is the number of entities of the labels.
	Support int `json:"support"`
	// NPredicted entities are those of the predictions, NCorrect those among them that are right.
	NPredicted int `json:"n_predicted"`
	NCorrect   int `json:"n_correct"`
}

// EntityScores are the scores over all types and those of each type.
type EntityScores struct {
	EntityScore
	// Accuracy is the fraction of tags that equal their label.
	Accuracy float64
	ByType   map[string]EntityScore
}

// Entities scores named entities as the CoNLL script conlleval does. predictions and labels hold
// rows of length tags each, as positions in tags, which are BIO, IOB or BIOES. Entries whose label is
// negative are left out, so the labels of a token classification batch fit as they are.
func Entities(predictions, labels []int64, length int, tags []string) (*EntityScores, error) {
	return entities(predictions, labels, length, tags, false)
}

// StrictEntities is as Entities, counted as seqeval does in strict mode: a B- tag begins an entity,
// only I- tags of its type continue it; with tags E- and S-, E- ends it and S- is one.
func StrictEntities(predictions, labels []int64, length int, tags []string) (*EntityScores, error) {
	return entities(predictions, labels, length, tags, true)
}

func entities(
	predictions, labels []int64, length int, tags []string, strict bool,
) (*EntityScores, error) {
	if length <= 0 || len(labels)%length != 0 {
		return nil, invalid("%d labels are not rows of length %d", len(labels), length)
	}
	var a arena
	defer a.free()
	p, l, n := a.pairs(predictions, labels)
	names, width := a.texts(tags), C.size_t(length)
	var raw C.mmopt_entity_scores
	var byType *C.char
	err := a.call(func() *C.mmopt_error {
		if strict {
			return C.mmopt_metrics_strict_entities(
				p, l, n/width, width, names, C.size_t(len(tags)), &raw, &byType,
			)
		}
		return C.mmopt_metrics_entities(
			p, l, n/width, width, names, C.size_t(len(tags)), &raw, &byType,
		)
	})
	if err != nil {
		return nil, err
	}
	scores := &EntityScores{
		EntityScore: EntityScore{
			Precision: float64(raw.precision), Recall: float64(raw.recall), F1: float64(raw.f1),
			Support: int(raw.support), NPredicted: int(raw.n_predicted), NCorrect: int(raw.n_correct),
		},
		Accuracy: float64(raw.accuracy),
	}
	if err := json.Unmarshal([]byte(takeText(byType)), &scores.ByType); err != nil {
		return nil, err
	}
	return scores, nil
}

// ConfusionMatrix counts how many of each class were predicted as which: a row for each label, in it a
// count for each prediction. Entries whose label is negative are left out.
func ConfusionMatrix(predictions, labels []int64, classes int) ([][]uint64, error) {
	var a arena
	defer a.free()
	p, l, n := a.pairs(predictions, labels)
	return a.matrix(classes, func(size C.size_t, matrix *C.uint64_t) *C.mmopt_error {
		return C.mmopt_metrics_confusion_matrix(p, l, n, size, matrix)
	})
}

// ScoresConfusionMatrix is the confusion matrix of the scores of a loader as JSON, which the C
// function mmopt_trainer_evaluate_loader gives; EvaluateLoader has it in Scores.Confusion.
func ScoresConfusionMatrix(json string, classes int) ([][]uint64, error) {
	var a arena
	defer a.free()
	text := a.text(json)
	return a.matrix(classes, func(size C.size_t, matrix *C.uint64_t) *C.mmopt_error {
		return C.mmopt_scores_confusion_matrix(text, size, matrix)
	})
}

func (a *arena) matrix(
	classes int, fill func(C.size_t, *C.uint64_t) *C.mmopt_error,
) ([][]uint64, error) {
	size := a.size("classes", classes)
	if classes > 1<<16 {
		return nil, invalid("%d classes are too many for a matrix", classes)
	}
	all := array[C.uint64_t](a, max(classes, 0)*max(classes, 0))
	if err := a.call(func() *C.mmopt_error { return fill(size, all) }); err != nil {
		return nil, err
	}
	rows := make([][]uint64, classes)
	counts := unsafe.Slice(all, classes*classes)
	for i := range rows {
		for _, n := range counts[i*classes : (i+1)*classes] {
			rows[i] = append(rows[i], uint64(n))
		}
	}
	return rows, nil
}

// RegressionScores are scores of predicted numbers.
type RegressionScores struct {
	// MSE is the mean of the squared differences.
	MSE float64
	// Pearson and Spearman are correlations, of the numbers and of their ranks; NaN where either side
	// is constant.
	Pearson, Spearman float64
}

// Regression scores predicted numbers against the right ones.
func Regression(predictions, labels []float64) (RegressionScores, error) {
	var a arena
	defer a.free()
	if len(predictions) != len(labels) {
		return RegressionScores{}, invalid("%d predictions for %d labels", len(predictions), len(labels))
	}
	p := (*C.double)(pinnedArray(&a, predictions))
	l := (*C.double)(pinnedArray(&a, labels))
	var raw C.mmopt_regression_scores
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_metrics_regression(p, l, C.size_t(len(labels)), &raw)
	})
	return RegressionScores{float64(raw.mse), float64(raw.pearson), float64(raw.spearman)}, err
}

// Perplexity is e to the mean loss of a token, from the mean losses of batches and their numbers of
// tokens.
func Perplexity(losses []float64, tokens []uint64) (float64, error) {
	var a arena
	defer a.free()
	if len(losses) != len(tokens) {
		return 0, invalid("%d losses for %d counts of tokens", len(losses), len(tokens))
	}
	l := (*C.double)(pinnedArray(&a, losses))
	t := (*C.uint64_t)(pinnedArray(&a, tokens))
	var value C.double
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_metrics_perplexity(l, t, C.size_t(len(losses)), &value)
	})
	return float64(value), err
}

// Answers gives exact match and F1 of predicted answers against the accepted ones of each question,
// both in per cent, as SQuAD's evaluation script does.
func Answers(predictions []string, accepted [][]string) (exactMatch, f1 float64, err error) {
	if len(predictions) != len(accepted) {
		return 0, 0, invalid("%d predictions for %d questions", len(predictions), len(accepted))
	}
	var a arena
	defer a.free()
	counts := array[C.size_t](&a, len(accepted))
	var all []string
	for i, answers := range accepted {
		unsafe.Slice(counts, len(accepted))[i] = C.size_t(len(answers))
		all = append(all, answers...)
	}
	p, answers := a.texts(predictions), a.texts(all)
	var first, second C.double
	err = a.call(func() *C.mmopt_error {
		return C.mmopt_metrics_answers(p, answers, counts, C.size_t(len(predictions)), &first, &second)
	})
	return float64(first), float64(second), err
}

// Answer is the span of a context that a model predicts as the answer to a question.
type Answer struct {
	Text string
	// Start and End are bytes of the context.
	Start, End int
	// Score is start logit plus end logit. Of several rows of one question, the answer of the
	// greatest score is the question's.
	Score float64
}

// BestAnswer is the best answer of one row of a question answering batch, of at most
// maxAnswerTokens tokens. The logits are one row of each of an evaluation's outputs, as many as the
// batch is long. False where the row has no token of the context.
func (b *Batch) BestAnswer(
	model, row int, startLogits, endLogits []float32, maxAnswerTokens int,
) (Answer, bool, error) {
	defer runtime.KeepAlive(b)
	var a arena
	defer a.free()
	if len(startLogits) != len(endLogits) {
		return Answer{}, false, invalid("%d start and %d end logits", len(startLogits), len(endLogits))
	}
	m, r, most := a.size("model", model), a.size("row", row), a.size("maxAnswerTokens", maxAnswerTokens)
	starts := (*C.float)(pinnedArray(&a, startLogits))
	ends := (*C.float)(pinnedArray(&a, endLogits))
	n := C.size_t(len(startLogits))
	var raw C.mmopt_answer
	var text *C.char
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_batch_best_answer(b.c(), m, r, starts, ends, n, most, &raw, &text)
	})
	if err != nil || text == nil {
		return Answer{}, false, err
	}
	return Answer{takeText(text), int(raw.start), int(raw.end), float64(raw.score)}, true, nil
}

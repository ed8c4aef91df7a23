package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"encoding/json"
	"runtime"
)

// EvaluateOptions say how predictions are made for scores; only question answering has a choice.
// Start from DefaultEvaluateOptions.
type EvaluateOptions struct {
	defaulted bool
	// NBest: an answer begins and ends at one of so many best tokens of a window; default 20.
	NBest int
	// MaxAnswerTokens is the greatest length of an answer; default 30.
	MaxAnswerTokens int
	// AllowNoAnswer lets "no answer" be predicted, as for SQuAD 2.0.
	AllowNoAnswer bool
	// NoAnswerThreshold: "no answer" is predicted when its score exceeds that of the best answer by
	// more than this.
	NoAnswerThreshold float64
}

// DefaultEvaluateOptions are the library's defaults.
func DefaultEvaluateOptions() EvaluateOptions {
	var raw C.mmopt_evaluate_options
	C.mmopt_evaluate_options_init(&raw)
	return EvaluateOptions{
		defaulted:         true,
		NBest:             int(raw.n_best),
		MaxAnswerTokens:   int(raw.max_answer_tokens),
		AllowNoAnswer:     raw.allow_no_answer != 0,
		NoAnswerThreshold: float64(raw.no_answer_threshold),
	}
}

func (o *EvaluateOptions) c(a *arena) *C.mmopt_evaluate_options {
	raw := array[C.mmopt_evaluate_options](a, 1)
	C.mmopt_evaluate_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "EvaluateOptions")
	raw.n_best = a.size("NBest", o.NBest)
	raw.max_answer_tokens = a.size("MaxAnswerTokens", o.MaxAnswerTokens)
	raw.allow_no_answer = flag(o.AllowNoAnswer)
	raw.no_answer_threshold = C.double(o.NoAnswerThreshold)
	return raw
}

// ClassScore are the scores of one class.
type ClassScore struct {
	Name string `json:"name"`
	EntityScore
}

// Scores of a model on a corpus. What the corpus's task does not have is NaN or empty.
type Scores struct {
	// Score is one number to compare models by, 0 to 1, greater is better: EntityF1 for tags in BIO,
	// IOB or BIOES; AnswerF1 / 100 for questions; else Accuracy.
	Score float64
	// Loss is the mean over the labels that count, of the whole corpus.
	Loss float64
	// Accuracy is Correct / Labels.
	Accuracy float64
	// MacroF1 of classes or tags.
	MacroF1 float64
	// Entities as the script conlleval counts them (and seqeval by default).
	EntityPrecision, EntityRecall, EntityF1 float64
	// Entities as seqeval counts them in strict mode.
	StrictEntityPrecision, StrictEntityRecall, StrictEntityF1 float64
	// ExactMatch and AnswerF1 by SQuAD's script, 0 to 100.
	ExactMatch, AnswerF1 float64
	// Perplexity of a language model, exp(Loss).
	Perplexity float64
	// Examples; Labels that count; Correct predictions; words that the model did not see because
	// their sentence was cut off before them.
	Examples, Labels, Correct, UnseenWords uint64
	// Classes are the scores of each class or tag.
	Classes []ClassScore
	// Confusion[label][prediction] is how many of a class were predicted as which.
	Confusion [][]int
	// EntityTypes are the scores of each type of entities, and StrictEntityTypes those of strict
	// mode.
	EntityTypes, StrictEntityTypes map[string]EntityScore
}

// EvaluateLoader gives the scores of one model on its part of a loader: every example once, in
// order. The loader stays where it is.
func (t *Trainer) EvaluateLoader(
	ctx context.Context, model int, loader *Loader, options *EvaluateOptions,
) (*Scores, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(loader)
	var a arena
	defer a.free()
	m, o := a.size("model", model), options.c(&a)
	var raw C.mmopt_scores
	var text *C.char
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_evaluate_loader(t.c(), m, loader.c(), o, &raw, &text)
	})
	if err != nil {
		return nil, err
	}
	return scoresOf(&raw, takeText(text))
}

func scoresOf(raw *C.mmopt_scores, text string) (*Scores, error) {
	type entities struct {
		ByType map[string]EntityScore `json:"by_type"`
	}
	var more struct {
		Classes   []ClassScore `json:"classes"`
		Confusion [][]int      `json:"confusion_matrix"`
		Entities  entities     `json:"entities"`
		Strict    entities     `json:"strict_entities"`
	}
	if err := json.Unmarshal([]byte(text), &more); err != nil {
		return nil, err
	}
	return &Scores{
		Score:                 float64(raw.score),
		Loss:                  float64(raw.loss),
		Accuracy:              float64(raw.accuracy),
		MacroF1:               float64(raw.macro_f1),
		EntityPrecision:       float64(raw.entity_precision),
		EntityRecall:          float64(raw.entity_recall),
		EntityF1:              float64(raw.entity_f1),
		StrictEntityPrecision: float64(raw.strict_entity_precision),
		StrictEntityRecall:    float64(raw.strict_entity_recall),
		StrictEntityF1:        float64(raw.strict_entity_f1),
		ExactMatch:            float64(raw.exact_match),
		AnswerF1:              float64(raw.answer_f1),
		Perplexity:            float64(raw.perplexity),
		Examples:              uint64(raw.n_examples),
		Labels:                uint64(raw.n_labels),
		Correct:               uint64(raw.n_correct),
		UnseenWords:           uint64(raw.n_words_unseen),
		Classes:               more.Classes,
		Confusion:             more.Confusion,
		EntityTypes:           more.Entities.ByType,
		StrictEntityTypes:     more.Strict.ByType,
	}, nil
}

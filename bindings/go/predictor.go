package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// PredictOptions say how texts are encoded and answers are found. Start from DefaultPredictOptions.
type PredictOptions struct {
	defaulted bool
	// BatchSize: texts, or windows of contexts, that run at once; default 16.
	BatchSize int
	// MaxLength of a sequence in tokens; 0 (default): the tokenizer's.
	MaxLength int
	// SplitPunctuation: punctuation around a word, and a final 's, are words of their own for
	// entities; default true.
	SplitPunctuation bool
	// Overlap is how many tokens neighbouring windows of a context share; default 64.
	Overlap int
	// EvaluateOptions say how answers are found. NBest is the greatest number of answers to a
	// question, too.
	EvaluateOptions
}

// DefaultPredictOptions are the library's defaults.
func DefaultPredictOptions() PredictOptions {
	var raw C.mmopt_predict_options
	C.mmopt_predict_options_init(&raw)
	return PredictOptions{
		defaulted:        true,
		BatchSize:        int(raw.batch_size),
		MaxLength:        int(raw.max_length),
		SplitPunctuation: raw.split_punctuation != 0,
		Overlap:          int(raw.overlap),
		EvaluateOptions: EvaluateOptions{
			defaulted:         true,
			NBest:             int(raw.n_best),
			MaxAnswerTokens:   int(raw.max_answer_tokens),
			AllowNoAnswer:     raw.allow_no_answer != 0,
			NoAnswerThreshold: float64(raw.no_answer_threshold),
		},
	}
}

func (o *PredictOptions) c(a *arena) *C.mmopt_predict_options {
	raw := array[C.mmopt_predict_options](a, 1)
	C.mmopt_predict_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "PredictOptions")
	raw.batch_size = a.size("BatchSize", o.BatchSize)
	raw.max_length = a.size("MaxLength", o.MaxLength)
	raw.split_punctuation = flag(o.SplitPunctuation)
	raw.overlap = a.size("Overlap", o.Overlap)
	raw.n_best = a.size("NBest", o.NBest)
	raw.max_answer_tokens = a.size("MaxAnswerTokens", o.MaxAnswerTokens)
	raw.allow_no_answer = flag(o.AllowNoAnswer)
	raw.no_answer_threshold = C.double(o.NoAnswerThreshold)
	return raw
}

// Prediction is a class, an entity or an answer.
type Prediction struct {
	// Label is the class or the entity's type; empty for answers.
	Label string
	// Text of the entity or the answer; empty for classes, and for "no answer".
	Text string
	// Start and End are bytes of the text, or for answers of the context.
	Start, End int
	// Probability, 0 to 1: of classes the softmax of the logits; of an entity the mean over its words
	// of their tags' softmax; of answers the softmax of the scores of those that are listed.
	Probability float64
	// Score: of classes the logit; of an entity the mean of its words' tags' logits; of answers the
	// start logit plus the end logit.
	Score float64
}

// takePredictions copies what the C library predicted for each text, and frees it.
func takePredictions(raw *C.mmopt_predictions) ([][]Prediction, error) {
	defer C.mmopt_predictions_free(raw)
	all := make([][]Prediction, int(C.mmopt_predictions_n_texts(raw)))
	for i := range all {
		var list *C.mmopt_prediction
		var n C.size_t
		if err := take(C.mmopt_predictions_of(raw, C.size_t(i), &list, &n)); err != nil {
			return nil, err
		}
		for _, p := range unsafe.Slice(list, int(n)) {
			all[i] = append(all[i], Prediction{
				C.GoString(p.label), C.GoString(p.text), int(p.start), int(p.end),
				float64(p.probability), float64(p.score),
			})
		}
	}
	return all, nil
}

// inputs are texts and, where there are any, their pairs.
func (a *arena) inputs(texts, pairs []string) (first, second **C.char, n C.size_t) {
	if pairs != nil && len(pairs) != len(texts) {
		a.fail(invalid("%d pairs for %d texts", len(pairs), len(texts)))
	}
	return a.texts(texts), a.texts(pairs), C.size_t(len(texts))
}

// Predict gives what one model says about texts: with a model for classification the classes of each
// text, or with pairs (else nil) of each pair, most probable first; with one for tokens the entities
// of each text; with one for questions the answers to texts, which are the questions, in pairs, which
// are their contexts, best first.
func (t *Trainer) Predict(
	ctx context.Context, model int, tokenizer *Tokenizer, texts, pairs []string,
	options *PredictOptions,
) ([][]Prediction, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(tokenizer)
	var a arena
	defer a.free()
	m, o := a.size("model", model), options.c(&a)
	first, second, n := a.inputs(texts, pairs)
	var made *C.mmopt_predictions
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_predict(t.c(), m, tokenizer.c(), first, second, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	return takePredictions(made)
}

// PredictorOptions say how a predictor runs. The zero value has the defaults.
type PredictorOptions struct {
	// Threads of a call; 0: one for each core.
	Threads int
	// Device, and the number of the GPU.
	Device   Device
	DeviceID int
	// MaxSessions that it keeps open, one for each shape of batch; 0: 16.
	MaxSessions int
}

// Predictor is a model and its tokenizer, read from a directory. Goroutines may share it.
type Predictor struct{ object }

func (p *Predictor) c() *C.mmopt_predictor {
	if p == nil {
		return nil
	}
	return (*C.mmopt_predictor)(p.address())
}

func freePredictor(p unsafe.Pointer) { C.mmopt_predictor_free((*C.mmopt_predictor)(p)) }

// LoadPredictor reads a model and its tokenizer from a directory: config.json, weights in
// safetensors, and the tokenizer's files, as SaveModel and Tokenizer.Save, or Hugging Face's
// libraries, write them. options may be nil.
func LoadPredictor(directory string, options *PredictorOptions) (*Predictor, error) {
	var a arena
	defer a.free()
	raw := array[C.mmopt_predictor_options](&a, 1)
	C.mmopt_predictor_options_init(raw)
	if options != nil {
		raw.n_threads = a.size("Threads", options.Threads)
		raw.device = C.uint32_t(options.Device)
		raw.device_id = C.int32_t(options.DeviceID)
		raw.max_sessions = a.size("MaxSessions", options.MaxSessions)
	}
	name := a.text(directory)
	var made *C.mmopt_predictor
	err := a.call(func() *C.mmopt_error { return C.mmopt_predictor_load(name, raw, &made) })
	if err != nil {
		return nil, err
	}
	p := new(Predictor)
	p.own(unsafe.Pointer(made), freePredictor)
	return p, nil
}

// Predict is as Trainer.Predict.
func (p *Predictor) Predict(
	texts, pairs []string, options *PredictOptions,
) ([][]Prediction, error) {
	defer runtime.KeepAlive(p)
	var a arena
	defer a.free()
	o := options.c(&a)
	first, second, n := a.inputs(texts, pairs)
	var made *C.mmopt_predictions
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_predictor_predict(p.c(), first, second, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	return takePredictions(made)
}

package mmopt

// #include <mmopt.h>
import "C"

import (
	"context"
	"runtime"
)

// GenerateOptions say how text is generated. Start from DefaultGenerateOptions.
type GenerateOptions struct {
	defaulted bool
	// MaxNewTokens are added to a prompt at most; default 64.
	MaxNewTokens int
	// DoSample draws tokens by their probability; else (default) the most probable one is taken.
	DoSample bool
	// Temperature divides the logits before drawing; above 0; default 1.
	Temperature float64
	// TopK: only so many most probable tokens are drawn; 0 (default): all.
	TopK int
	// TopP: after TopK, only the fewest most probable tokens are drawn whose probabilities sum to at
	// least this; above 0, at most 1 (default).
	TopP float64
	// Seed decides what is drawn.
	Seed uint64
	// MaxLength of a sequence in tokens; 0 (default): the tokenizer's or the model's, the shorter. A
	// longer text is cut at the left.
	MaxLength int
}

// DefaultGenerateOptions are the library's defaults.
func DefaultGenerateOptions() GenerateOptions {
	var raw C.mmopt_generate_options
	C.mmopt_generate_options_init(&raw)
	return GenerateOptions{
		defaulted:    true,
		MaxNewTokens: int(raw.max_new_tokens),
		DoSample:     raw.do_sample != 0,
		Temperature:  float64(raw.temperature),
		TopK:         int(raw.top_k),
		TopP:         float64(raw.top_p),
		Seed:         uint64(raw.seed),
		MaxLength:    int(raw.max_length),
	}
}

func (o *GenerateOptions) c(a *arena) *C.mmopt_generate_options {
	raw := array[C.mmopt_generate_options](a, 1)
	C.mmopt_generate_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "GenerateOptions")
	raw.max_new_tokens = a.size("MaxNewTokens", o.MaxNewTokens)
	raw.do_sample = flag(o.DoSample)
	raw.temperature = C.double(o.Temperature)
	raw.top_k = a.size("TopK", o.TopK)
	raw.top_p = C.double(o.TopP)
	raw.seed = C.uint64_t(o.Seed)
	raw.max_length = a.size("MaxLength", o.MaxLength)
	return raw
}

// firsts are the only predictions of each text.
func firsts(all [][]Prediction, err error) ([]Prediction, error) {
	if err != nil {
		return nil, err
	}
	one := make([]Prediction, len(all))
	for i, list := range all {
		one[i] = list[0]
	}
	return one, nil
}

// Generate gives what one model, which predicts the next token, writes after each prompt. Text is what
// comes after the prompt; Label is "stop" when the model ended the text, else "length"; Score is the
// sum of the logarithms of the tokens' probabilities, and Probability e to the mean of these. options
// may be nil.
func (t *Trainer) Generate(
	ctx context.Context, model int, tokenizer *Tokenizer, prompts []string,
	options *GenerateOptions,
) ([]Prediction, error) {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(tokenizer)
	var a arena
	defer a.free()
	m, o := a.size("model", model), options.c(&a)
	texts, n := a.texts(prompts), C.size_t(len(prompts))
	var made *C.mmopt_predictions
	err := t.pass(ctx, &a, func() *C.mmopt_error {
		return C.mmopt_trainer_generate(t.c(), m, tokenizer.c(), texts, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	return firsts(takePredictions(made))
}

// Generate is as Trainer.Generate.
func (p *Predictor) Generate(prompts []string, options *GenerateOptions) ([]Prediction, error) {
	defer runtime.KeepAlive(p)
	var a arena
	defer a.free()
	o := options.c(&a)
	texts, n := a.texts(prompts), C.size_t(len(prompts))
	var made *C.mmopt_predictions
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_predictor_generate(p.c(), texts, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	return firsts(takePredictions(made))
}

package mmopt

// #include <mmopt.h>
import "C"

import (
	"iter"
	"runtime"
	"unsafe"
)

// Objective is what a language model learns from plain text.
type Objective uint32

// The objectives.
const (
	// Causal learns the next token.
	Causal Objective = C.MMOPT_OBJECTIVE_CAUSAL
	// Masked learns masked tokens.
	Masked Objective = C.MMOPT_OBJECTIVE_MASKED
	// AutoObjective predicts masked tokens for models whose tokenizer has a mask token, and the next
	// token for others.
	AutoObjective Objective = C.MMOPT_OBJECTIVE_AUTO
)

// Sampling is how the examples of an epoch are chosen.
type Sampling uint32

// The ways of choosing examples.
const (
	// EachOnce takes each example once.
	EachOnce Sampling = C.MMOPT_SAMPLING_EACH_ONCE
	// ClassBalanced draws examples with replacement, all classes equally likely.
	ClassBalanced Sampling = C.MMOPT_SAMPLING_CLASS_BALANCED
	// Weighted draws examples with replacement, in proportion to ExampleWeights.
	Weighted Sampling = C.MMOPT_SAMPLING_WEIGHTED
)

// LoaderOptions say how a corpus is encoded, ordered and padded. Start from DefaultLoaderOptions.
type LoaderOptions struct {
	defaulted bool
	// BatchSize in rows; default 16.
	BatchSize int
	// MaxLength of a sequence in tokens; 0 (default): each tokenizer's.
	MaxLength int
	// Shuffle: a new order in each epoch; default true.
	Shuffle bool
	// DropLast leaves out a last batch that is not full.
	DropLast bool
	// Seed decides every order and every masked token.
	Seed uint64
	// BucketBatches are sorted by length together; 0: none; default 32.
	BucketBatches int
	// PadToMultipleOf: padded lengths are multiples of this; default 8.
	PadToMultipleOf int
	// Aligned models see the same examples at the same step; default true.
	Aligned bool
	// Objective for plain text.
	Objective Objective
	// MLMProbability is the probability that a token is masked; default 0.15.
	MLMProbability float64
	// AllWindows makes several rows of a long context.
	AllWindows bool
	// Pack joins the examples of plain text and cuts them into rows of MaxLength; default true.
	Pack bool
	// Overlap is how many tokens neighbouring windows of a context share; default 64.
	Overlap int
	// UnlabelledRatio is how many unlabelled examples every batch has for each labelled one; then an
	// epoch is one walk over the unlabelled ones, and the labelled ones are repeated. 0 (default):
	// examples come as they are.
	UnlabelledRatio float64
	// Sampling chooses the examples of an epoch; default EachOnce.
	Sampling Sampling
	// ExampleWeights has a weight for each example of the corpus, for Weighted.
	ExampleWeights []float64
	// Samples is how many examples are drawn for an epoch; 0 (default): as many as there are.
	Samples int
	// MaxTokens is the most tokens of a batch, rows times padded length, in place of BatchSize; 0
	// (default): BatchSize rows. Epochs may then differ in their number of batches.
	MaxTokens int
	// Rank of Ranks, from 0: every batch of BatchSize rows is dealt out to the ranks, so that all of
	// them see together what one alone would see. Default rank 0 of 1.
	Rank, Ranks int
}

// DefaultLoaderOptions are the library's defaults.
func DefaultLoaderOptions() LoaderOptions {
	var raw C.mmopt_loader_options
	C.mmopt_loader_options_init(&raw)
	return LoaderOptions{
		defaulted:       true,
		BatchSize:       int(raw.batch_size),
		MaxLength:       int(raw.max_length),
		Shuffle:         raw.shuffle != 0,
		DropLast:        raw.drop_last != 0,
		Seed:            uint64(raw.seed),
		BucketBatches:   int(raw.bucket_batches),
		PadToMultipleOf: int(raw.pad_to_multiple_of),
		Aligned:         raw.aligned != 0,
		Objective:       Objective(raw.objective),
		MLMProbability:  float64(raw.mlm_probability),
		AllWindows:      raw.all_windows != 0,
		Pack:            raw.pack != 0,
		Overlap:         int(raw.overlap),
		UnlabelledRatio: float64(raw.unlabelled_ratio),
		Sampling:        Sampling(raw.sampling),
		Samples:         int(raw.n_samples),
		MaxTokens:       int(raw.max_tokens),
		Rank:            int(raw.rank),
		Ranks:           int(raw.n_ranks),
	}
}

func (o *LoaderOptions) c(a *arena) *C.mmopt_loader_options {
	raw := array[C.mmopt_loader_options](a, 1)
	C.mmopt_loader_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "LoaderOptions")
	raw.batch_size = a.size("BatchSize", o.BatchSize)
	raw.max_length = a.size("MaxLength", o.MaxLength)
	raw.shuffle, raw.drop_last = flag(o.Shuffle), flag(o.DropLast)
	raw.seed = C.uint64_t(o.Seed)
	raw.bucket_batches = a.size("BucketBatches", o.BucketBatches)
	raw.pad_to_multiple_of = a.size("PadToMultipleOf", o.PadToMultipleOf)
	raw.aligned, raw.all_windows = flag(o.Aligned), flag(o.AllWindows)
	raw.pack, raw.overlap = flag(o.Pack), a.size("Overlap", o.Overlap)
	raw.objective = C.uint32_t(o.Objective)
	raw.mlm_probability = C.double(o.MLMProbability)
	raw.unlabelled_ratio = C.double(o.UnlabelledRatio)
	raw.sampling = C.uint32_t(o.Sampling)
	raw.example_weights = (*C.double)(pinnedArray(a, o.ExampleWeights))
	raw.n_example_weights = C.size_t(len(o.ExampleWeights))
	raw.n_samples = a.size("Samples", o.Samples)
	raw.max_tokens = a.size("MaxTokens", o.MaxTokens)
	raw.rank, raw.n_ranks = a.size("Rank", o.Rank), a.size("Ranks", o.Ranks)
	return raw
}

// Loader yields a corpus in batches. It belongs to one goroutine at a time.
type Loader struct{ object }

func (l *Loader) c() *C.mmopt_loader {
	if l == nil {
		return nil
	}
	return (*C.mmopt_loader)(l.address())
}

func freeLoader(p unsafe.Pointer) { C.mmopt_loader_free((*C.mmopt_loader)(p)) }

// NewLoader encodes a corpus with one tokenizer for each model.
func NewLoader(corpus *Corpus, tokenizers []*Tokenizer, options *LoaderOptions) (*Loader, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(corpus)
	defer runtime.KeepAlive(tokenizers)
	o, all, n := options.c(&a), a.tokenizers(tokenizers), C.size_t(len(tokenizers))
	var made *C.mmopt_loader
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_loader_create(corpus.c(), all, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	l := &Loader{}
	l.own(unsafe.Pointer(made), freeLoader)
	return l, nil
}

// WriteTokenFile encodes plain text once and writes its tokens to a file for
// [NewLoaderFromTokenFiles]: for text that is larger than memory. A file of the same text and
// tokenizer is left as it is. It returns the number of tokens.
func WriteTokenFile(path string, sampleBy SampleBy, tokenizer *Tokenizer, file string) (uint64, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(tokenizer)
	p, f := a.text(path), a.text(file)
	n := array[C.uint64_t](&a, 1)
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_token_file_write(p, C.uint32_t(sampleBy), tokenizer.c(), f, n)
	})
	return uint64(*n), err
}

// NewLoaderFromTokenFiles is a loader of files that [WriteTokenFile] made, one for each model, with
// the tokenizers that made them. The files must not change while it lives.
func NewLoaderFromTokenFiles(files []string, tokenizers []*Tokenizer, options *LoaderOptions) (*Loader, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(tokenizers)
	if len(files) != len(tokenizers) {
		a.fail(invalid("%d files for %d tokenizers", len(files), len(tokenizers)))
	}
	o, names := options.c(&a), a.texts(files)
	all, n := a.tokenizers(tokenizers), C.size_t(len(tokenizers))
	var made *C.mmopt_loader
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_loader_create_from_token_files(names, all, n, o, &made)
	})
	if err != nil {
		return nil, err
	}
	l := &Loader{}
	l.own(unsafe.Pointer(made), freeLoader)
	return l, nil
}

// Next is the next batch, or nil at the end of an epoch; the call after that begins the next.
func (l *Loader) Next() (*Batch, error) {
	defer runtime.KeepAlive(l)
	var made *C.mmopt_batch
	if err := take(C.mmopt_loader_next(l.c(), &made)); err != nil || made == nil {
		return nil, err
	}
	return newBatch(made), nil
}

// EncodingStats are what encoding made of a corpus for one model.
type EncodingStats struct {
	// Examples of the corpus; Rows of an epoch; Tokens of all rows, and those that were cut off.
	Examples, Rows, Tokens, TruncatedTokens uint64
	// UnseenWords of sentences have no token in any row, and UnplacedAnswers are questions whose
	// accepted answers no row holds.
	UnseenWords, UnplacedAnswers uint64
}

// EncodingStats tells what encoding made of the corpus for one model, and what was lost.
func (l *Loader) EncodingStats(model int) (EncodingStats, error) {
	defer runtime.KeepAlive(l)
	var a arena
	defer a.free()
	m := a.size("model", model)
	var raw C.mmopt_encoding_stats
	err := a.call(func() *C.mmopt_error { return C.mmopt_loader_encoding_stats(l.c(), m, &raw) })
	return EncodingStats{
		uint64(raw.n_examples), uint64(raw.n_rows), uint64(raw.n_tokens),
		uint64(raw.n_truncated_tokens), uint64(raw.n_unseen_words),
		uint64(raw.n_unplaced_answers),
	}, err
}

// Batches yields the batches up to the end of the epoch. Each batch is closed after its iteration;
// an error ends the loop.
func (l *Loader) Batches() iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for {
			batch, err := l.Next()
			if err != nil {
				yield(nil, err)
				return
			}
			if batch == nil {
				return
			}
			more := yield(batch, nil)
			batch.Close()
			if !more {
				return
			}
		}
	}
}

// Len is the number of batches of the current epoch; the same for all, except with MaxTokens.
func (l *Loader) Len() int {
	defer runtime.KeepAlive(l)
	return int(C.mmopt_loader_n_batches(l.c()))
}

// Epoch is the number of epochs done.
func (l *Loader) Epoch() uint64 {
	defer runtime.KeepAlive(l)
	return uint64(C.mmopt_loader_epoch(l.c()))
}

// Position is the number of batches of the current epoch that are done.
func (l *Loader) Position() int {
	defer runtime.KeepAlive(l)
	return int(C.mmopt_loader_position(l.c()))
}

// SetEpoch moves to the start of an epoch; 0 is the first.
func (l *Loader) SetEpoch(epoch uint64) error {
	defer runtime.KeepAlive(l)
	return take(C.mmopt_loader_set_epoch(l.c(), C.uint64_t(epoch)))
}

// State is the position of the loader as JSON, for Restore.
func (l *Loader) State() (string, error) {
	defer runtime.KeepAlive(l)
	var json *C.char
	if err := take(C.mmopt_loader_state(l.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// Restore moves to the position where State was taken.
func (l *Loader) Restore(state string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(l)
	p := a.text(state)
	return a.call(func() *C.mmopt_error { return C.mmopt_loader_restore(l.c(), p) })
}

// Batch holds the tensors of one step, a part for each model. It never changes and may be shared.
type Batch struct{ object }

func (b *Batch) c() *C.mmopt_batch {
	if b == nil {
		return nil
	}
	return (*C.mmopt_batch)(b.address())
}

func freeBatch(p unsafe.Pointer) { C.mmopt_batch_free((*C.mmopt_batch)(p)) }

func newBatch(p *C.mmopt_batch) *Batch {
	b := &Batch{}
	b.own(unsafe.Pointer(p), freeBatch)
	return b
}

// EncodeBatch makes a batch of unlabelled texts, for predictions. maxLength is the greatest length
// in tokens, 0 for each tokenizer's.
func EncodeBatch(tokenizers []*Tokenizer, texts []string, maxLength int) (*Batch, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(tokenizers)
	all, n := a.tokenizers(tokenizers), C.size_t(len(tokenizers))
	t, m, max := a.texts(texts), C.size_t(len(texts)), a.size("maxLength", maxLength)
	var made *C.mmopt_batch
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_batch_encode(all, n, t, m, max, &made)
	})
	if err != nil {
		return nil, err
	}
	return newBatch(made), nil
}

// Models is the number of models that the batch has parts for.
func (b *Batch) Models() int {
	defer runtime.KeepAlive(b)
	return int(C.mmopt_batch_n_models(b.c()))
}

// Rows is the number of rows of one model's part.
func (b *Batch) Rows(model int) int {
	defer runtime.KeepAlive(b)
	return int(C.mmopt_batch_n_rows(b.c(), C.size_t(model)))
}

// Tensors are copies of one model's tensors.
func (b *Batch) Tensors(model int) ([]Tensor, error) {
	defer runtime.KeepAlive(b)
	var all *C.mmopt_tensor
	var n C.size_t
	if err := take(C.mmopt_batch_tensors(b.c(), C.size_t(model), &all, &n)); err != nil {
		return nil, err
	}
	return clonedAll(all, n)
}

// Examples are the examples of the corpus behind each row of one model's part.
func (b *Batch) Examples(model int) ([]int, error) {
	defer runtime.KeepAlive(b)
	var all *C.size_t
	var n C.size_t
	if err := take(C.mmopt_batch_examples(b.c(), C.size_t(model), &all, &n)); err != nil {
		return nil, err
	}
	examples := make([]int, int(n))
	for i := range examples {
		examples[i] = int(unsafe.Slice(all, int(n))[i])
	}
	return examples, nil
}

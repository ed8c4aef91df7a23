package mmopt

// #include <mmopt.h>
// #include <stdlib.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Architecture is a family of models that the library can build, with its tokenizer.
type Architecture uint32

// The architectures.
const (
	BERT       Architecture = C.MMOPT_ARCHITECTURE_BERT
	GPT2       Architecture = C.MMOPT_ARCHITECTURE_GPT2
	RoBERTa    Architecture = C.MMOPT_ARCHITECTURE_ROBERTA
	DistilBERT Architecture = C.MMOPT_ARCHITECTURE_DISTILBERT
)

// ParseArchitecture finds an architecture by its published name, for example "gpt2".
func ParseArchitecture(name string) (Architecture, error) {
	p, free := cstring(name)
	defer free()
	found := Architecture(C.mmopt_architecture_from_name(p))
	if found == 0 {
		return 0, &Error{Code: NotFound, Message: "no architecture '" + name + "'"}
	}
	return found, nil
}

// String is the published name.
func (a Architecture) String() string {
	return C.GoString(C.mmopt_architecture_name(C.uint32_t(a)))
}

// Corpus holds the examples of one task. It never changes and may be shared.
type Corpus struct{ object }

func (c *Corpus) c() *C.mmopt_corpus { return (*C.mmopt_corpus)(c.pointer) }

func newCorpus(p *C.mmopt_corpus) *Corpus {
	c := &Corpus{}
	c.own(unsafe.Pointer(p), func(p unsafe.Pointer) { C.mmopt_corpus_free((*C.mmopt_corpus)(p)) })
	return c
}

// ReadClassification reads lines of the form text TAB label (also .csv and .jsonl files).
// labelsOf gives the classes, for evaluation data those of the training data; nil takes those seen.
func ReadClassification(path string, labelsOf *Corpus) (*Corpus, error) {
	p, free := cstring(path)
	defer free()
	var options C.mmopt_corpus_options
	C.mmopt_corpus_options_init(&options)
	if labelsOf != nil {
		options.labels_of = labelsOf.c()
	}
	var made *C.mmopt_corpus
	err := take(C.mmopt_corpus_read_classification(p, &options, &made))
	runtime.KeepAlive(labelsOf)
	if err != nil {
		return nil, err
	}
	return newCorpus(made), nil
}

// FromTexts makes a corpus from texts and the names of their classes, or nil for none.
func FromTexts(texts, labels []string) (*Corpus, error) {
	if labels != nil && len(labels) != len(texts) {
		return nil, &Error{Code: InvalidArgument, Message: "texts and labels differ in number"}
	}
	t, freeTexts := cstrings(texts)
	defer freeTexts()
	l, freeLabels := cstrings(labels)
	defer freeLabels()
	var made *C.mmopt_corpus
	err := take(C.mmopt_corpus_from_texts(t, l, C.size_t(len(texts)), nil, &made))
	if err != nil {
		return nil, err
	}
	return newCorpus(made), nil
}

// Synthetic generates n labelled sentences.
func Synthetic(n int, seed uint64, labelNoise float64) (*Corpus, error) {
	var made *C.mmopt_corpus
	err := take(C.mmopt_corpus_synthetic(C.size_t(n), C.uint64_t(seed), C.double(labelNoise), &made))
	if err != nil {
		return nil, err
	}
	return newCorpus(made), nil
}

// Split divides a corpus in training and evaluation; equal texts stay on one side.
func (c *Corpus) Split(evalShare float64, seed uint64) (train, eval *Corpus, err error) {
	var first, second *C.mmopt_corpus
	err = take(C.mmopt_corpus_split(c.c(), C.double(evalShare), C.uint64_t(seed), &first, &second))
	runtime.KeepAlive(c)
	if err != nil {
		return nil, nil, err
	}
	return newCorpus(first), newCorpus(second), nil
}

// Len is the number of examples.
func (c *Corpus) Len() int {
	defer runtime.KeepAlive(c)
	return int(C.mmopt_corpus_n_examples(c.c()))
}

// MajorityShare is the accuracy of always answering the most frequent class.
func (c *Corpus) MajorityShare() float64 {
	defer runtime.KeepAlive(c)
	return float64(C.mmopt_corpus_majority_share(c.c()))
}

// Labels are the names of the classes by id.
func (c *Corpus) Labels() []string {
	defer runtime.KeepAlive(c)
	labels := make([]string, int(C.mmopt_corpus_n_labels(c.c())))
	for i := range labels {
		labels[i] = C.GoString(C.mmopt_corpus_label_name(c.c(), C.size_t(i)))
	}
	return labels
}

// Tokenizer turns text into ids and back. It never changes and may be shared.
type Tokenizer struct{ object }

func (t *Tokenizer) c() *C.mmopt_tokenizer { return (*C.mmopt_tokenizer)(t.pointer) }

func newTokenizer(p *C.mmopt_tokenizer) *Tokenizer {
	t := &Tokenizer{}
	t.own(unsafe.Pointer(p), func(p unsafe.Pointer) { C.mmopt_tokenizer_free((*C.mmopt_tokenizer)(p)) })
	return t
}

// TokenizerOptions say how a vocabulary is learned. Zero fields take the library's defaults.
type TokenizerOptions struct {
	Architecture Architecture
	VocabSize    int
	MaxLength    int
}

// LoadTokenizer loads a tokenizer from a directory or file of published form.
func LoadTokenizer(path string) (*Tokenizer, error) {
	p, free := cstring(path)
	defer free()
	var made *C.mmopt_tokenizer
	if err := take(C.mmopt_tokenizer_load(p, &made)); err != nil {
		return nil, err
	}
	return newTokenizer(made), nil
}

// TrainTokenizer learns a vocabulary from all texts of a corpus.
func TrainTokenizer(corpus *Corpus, options TokenizerOptions) (*Tokenizer, error) {
	var o C.mmopt_tokenizer_options
	C.mmopt_tokenizer_options_init(&o)
	if options.Architecture != 0 {
		o.architecture = C.uint32_t(options.Architecture)
	}
	if options.VocabSize != 0 {
		o.vocab_size = C.size_t(options.VocabSize)
	}
	if options.MaxLength != 0 {
		o.max_length = C.size_t(options.MaxLength)
	}
	var made *C.mmopt_tokenizer
	err := take(C.mmopt_tokenizer_train(corpus.c(), &o, &made))
	runtime.KeepAlive(corpus)
	if err != nil {
		return nil, err
	}
	return newTokenizer(made), nil
}

// Save writes the tokenizer into an existing directory, in published form.
func (t *Tokenizer) Save(directory string) error {
	p, free := cstring(directory)
	defer free()
	defer runtime.KeepAlive(t)
	return take(C.mmopt_tokenizer_save(t.c(), p))
}

// VocabSize is the number of ids.
func (t *Tokenizer) VocabSize() int {
	defer runtime.KeepAlive(t)
	return int(C.mmopt_tokenizer_vocab_size(t.c()))
}

// Encode turns a text into at most maxLength ids; 0 takes the tokenizer's own limit.
func (t *Tokenizer) Encode(text string, maxLength int) ([]uint32, error) {
	p, free := cstring(text)
	defer free()
	defer runtime.KeepAlive(t)
	var made *C.mmopt_encoding
	if err := take(C.mmopt_tokenizer_encode(t.c(), p, nil, C.size_t(maxLength), &made)); err != nil {
		return nil, err
	}
	defer C.mmopt_encoding_free(made)
	n := int(C.mmopt_encoding_length(made))
	ids := unsafe.Slice((*uint32)(unsafe.Pointer(C.mmopt_encoding_ids(made))), n)
	return append([]uint32(nil), ids...), nil
}

// pointers is a C array of the tokenizers' pointers, and what frees it.
func pointers(tokenizers []*Tokenizer) (**C.mmopt_tokenizer, func()) {
	if len(tokenizers) == 0 {
		return nil, func() {}
	}
	size := C.size_t(len(tokenizers)) * C.size_t(unsafe.Sizeof(uintptr(0)))
	array := (**C.mmopt_tokenizer)(C.malloc(size))
	for i, t := range tokenizers {
		unsafe.Slice(array, len(tokenizers))[i] = t.c()
	}
	return array, func() {
		C.free(unsafe.Pointer(array))
		runtime.KeepAlive(tokenizers)
	}
}

// Loader walks a corpus in batches. It belongs to one goroutine at a time.
type Loader struct{ object }

func (l *Loader) c() *C.mmopt_loader { return (*C.mmopt_loader)(l.pointer) }

// LoaderOptions say how a corpus is walked. Zero fields take the library's defaults.
type LoaderOptions struct {
	BatchSize int
	MaxLength int
	Seed      uint64
	// InOrder keeps the order of the examples.
	InOrder bool
}

// NewLoader encodes a corpus with one tokenizer for each model.
func NewLoader(corpus *Corpus, tokenizers []*Tokenizer, options LoaderOptions) (*Loader, error) {
	var o C.mmopt_loader_options
	C.mmopt_loader_options_init(&o)
	if options.BatchSize != 0 {
		o.batch_size = C.size_t(options.BatchSize)
	}
	o.max_length = C.size_t(options.MaxLength)
	o.seed = C.uint64_t(options.Seed)
	if options.InOrder {
		o.shuffle = 0
	}
	all, free := pointers(tokenizers)
	defer free()
	var made *C.mmopt_loader
	err := take(C.mmopt_loader_create(corpus.c(), all, C.size_t(len(tokenizers)), &o, &made))
	runtime.KeepAlive(corpus)
	if err != nil {
		return nil, err
	}
	l := &Loader{}
	l.own(unsafe.Pointer(made), func(p unsafe.Pointer) { C.mmopt_loader_free((*C.mmopt_loader)(p)) })
	return l, nil
}

// Next gives the next batch, or nil at the end of an epoch.
func (l *Loader) Next() (*Batch, error) {
	defer runtime.KeepAlive(l)
	var made *C.mmopt_batch
	if err := take(C.mmopt_loader_next(l.c(), &made)); err != nil || made == nil {
		return nil, err
	}
	return newBatch(made), nil
}

// Batches is the number of batches of an epoch.
func (l *Loader) Batches() int {
	defer runtime.KeepAlive(l)
	return int(C.mmopt_loader_n_batches(l.c()))
}

// State is where the loader stands, for Restore.
func (l *Loader) State() (string, error) {
	defer runtime.KeepAlive(l)
	var json *C.char
	if err := take(C.mmopt_loader_state(l.c(), &json)); err != nil {
		return "", err
	}
	return takeText(json), nil
}

// Restore goes to where State was taken.
func (l *Loader) Restore(state string) error {
	p, free := cstring(state)
	defer free()
	defer runtime.KeepAlive(l)
	return take(C.mmopt_loader_restore(l.c(), p))
}

// Batch holds the tensors of one step, a part for each model.
type Batch struct{ object }

func (b *Batch) c() *C.mmopt_batch { return (*C.mmopt_batch)(b.pointer) }

func newBatch(p *C.mmopt_batch) *Batch {
	b := &Batch{}
	b.own(unsafe.Pointer(p), func(p unsafe.Pointer) { C.mmopt_batch_free((*C.mmopt_batch)(p)) })
	return b
}

// EncodeBatch makes a batch of unlabelled texts, for predictions.
func EncodeBatch(tokenizers []*Tokenizer, texts []string) (*Batch, error) {
	all, free := pointers(tokenizers)
	defer free()
	t, freeTexts := cstrings(texts)
	defer freeTexts()
	var made *C.mmopt_batch
	n, m := C.size_t(len(tokenizers)), C.size_t(len(texts))
	if err := take(C.mmopt_batch_encode(all, n, t, m, 0, &made)); err != nil {
		return nil, err
	}
	return newBatch(made), nil
}

// Rows is the number of rows of one model's part.
func (b *Batch) Rows(model int) int {
	defer runtime.KeepAlive(b)
	return int(C.mmopt_batch_n_rows(b.c(), C.size_t(model)))
}

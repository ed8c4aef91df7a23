package mmopt

// #include <mmopt.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// CorpusFormat is the format of a file of labelled texts.
type CorpusFormat uint32

// The formats.
const (
	// CorpusFormatAuto goes by the ending: .csv, .jsonl or .json, .parquet, else tabs.
	CorpusFormatAuto CorpusFormat = C.MMOPT_CORPUS_FORMAT_AUTO
	CorpusFormatTSV  CorpusFormat = C.MMOPT_CORPUS_FORMAT_TSV
	CorpusFormatCSV  CorpusFormat = C.MMOPT_CORPUS_FORMAT_CSV
	// CorpusFormatJSONL is one object a line, or one array of objects.
	CorpusFormatJSONL CorpusFormat = C.MMOPT_CORPUS_FORMAT_JSONL
	// CorpusFormatFolder is a folder with a folder of text files for each class.
	CorpusFormatFolder CorpusFormat = C.MMOPT_CORPUS_FORMAT_FOLDER
	// CorpusFormatParquet needs a library with the cargo feature parquet.
	CorpusFormatParquet CorpusFormat = C.MMOPT_CORPUS_FORMAT_PARQUET
)

// CorpusHeader says whether the first line of a table names its columns.
type CorpusHeader uint32

// What a first line may be.
const (
	CorpusHeaderAuto CorpusHeader = C.MMOPT_CORPUS_HEADER_AUTO
	CorpusHeaderYes  CorpusHeader = C.MMOPT_CORPUS_HEADER_YES
	CorpusHeaderNo   CorpusHeader = C.MMOPT_CORPUS_HEADER_NO
)

// SampleBy is what becomes one example of a file of plain text.
type SampleBy uint32

// What one example may be.
const (
	// SampleByParagraph: lines up to a blank one.
	SampleByParagraph SampleBy = C.MMOPT_SAMPLE_BY_PARAGRAPH
	// SampleByLine: each line that is not blank.
	SampleByLine SampleBy = C.MMOPT_SAMPLE_BY_LINE
	// SampleByDocument: the whole file.
	SampleByDocument SampleBy = C.MMOPT_SAMPLE_BY_DOCUMENT
)

// CorpusOptions say how labelled texts are read; their zero value is the default.
type CorpusOptions struct {
	Format CorpusFormat
	Header CorpusHeader
	// TextColumn, PairColumn and LabelColumn are names, or numbers from "0". Empty: the first
	// column (in JSON the keys text or sentence), none, the second (in JSON label). In JSON a name
	// may be a path: answers.0.text.
	TextColumn, PairColumn, LabelColumn string
	// Unlabelled files have no labels.
	Unlabelled bool
	// LabelsOf has the classes, for evaluation data those of the training data; nil takes those
	// seen.
	LabelsOf *Corpus
	// LabelNames are the names of the classes in the order of their ids, in place of LabelsOf.
	LabelNames []string
}

func (o *CorpusOptions) c(a *arena) *C.mmopt_corpus_options {
	raw := array[C.mmopt_corpus_options](a, 1)
	C.mmopt_corpus_options_init(raw)
	if o == nil {
		return raw
	}
	raw.format, raw.header = C.uint32_t(o.Format), C.uint32_t(o.Header)
	raw.text_column = a.optional(o.TextColumn)
	raw.pair_column = a.optional(o.PairColumn)
	raw.label_column = a.optional(o.LabelColumn)
	raw.unlabelled = flag(o.Unlabelled)
	raw.labels_of = o.LabelsOf.c()
	raw.label_names, raw.n_label_names = a.texts(o.LabelNames), C.size_t(len(o.LabelNames))
	return raw
}

// Corpus holds the examples of one task. It never changes and may be shared.
type Corpus struct{ object }

func (c *Corpus) c() *C.mmopt_corpus {
	if c == nil {
		return nil
	}
	return (*C.mmopt_corpus)(c.address())
}

func freeCorpus(p unsafe.Pointer) { C.mmopt_corpus_free((*C.mmopt_corpus)(p)) }

func newCorpus(p *C.mmopt_corpus) *Corpus {
	c := &Corpus{}
	c.own(unsafe.Pointer(p), freeCorpus)
	return c
}

// makeCorpus runs a call that makes a corpus.
func makeCorpus(a *arena, f func(**C.mmopt_corpus) *C.mmopt_error) (*Corpus, error) {
	var made *C.mmopt_corpus
	if err := a.call(func() *C.mmopt_error { return f(&made) }); err != nil {
		return nil, err
	}
	return newCorpus(made), nil
}

// ReadClassification reads texts with one class each: lines of the form text TAB label, .csv, .json,
// .jsonl, .parquet, or a folder of text files. A path may be a pattern of several files (* and ?),
// here and in the other readers.
func ReadClassification(path string, options *CorpusOptions) (*Corpus, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(options)
	p, o := a.text(path), options.c(&a)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_read_classification(p, o, made)
	})
}

// ReadTokenClassification reads lines with a word first and its tag last, blank lines between sentences.
// labelsOf has the tags; nil takes those of the file.
func ReadTokenClassification(path string, labelsOf *Corpus) (*Corpus, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(labelsOf)
	p := a.text(path)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_read_token_classification(p, labelsOf.c(), made)
	})
}

// ReadWords reads words without tags: the first column of each line, blank lines between sentences.
func ReadWords(path string) (*Corpus, error) {
	var a arena
	defer a.free()
	p := a.text(path)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_read_words(p, made)
	})
}

// ReadQuestionAnswering reads questions about contexts: SQuAD, or one object a line.
func ReadQuestionAnswering(path string) (*Corpus, error) {
	var a arena
	defer a.free()
	p := a.text(path)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_read_question_answering(p, made)
	})
}

// ReadPlainText reads text for language modelling.
func ReadPlainText(path string, sampleBy SampleBy) (*Corpus, error) {
	var a arena
	defer a.free()
	p := a.text(path)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_read_plain_text(p, C.uint32_t(sampleBy), made)
	})
}

// FromTexts makes a corpus from texts and the names of their classes, or nil for none. labelsOf is
// as in CorpusOptions.
func FromTexts(texts, labels []string, labelsOf *Corpus) (*Corpus, error) {
	if labels != nil && len(labels) != len(texts) {
		return nil, invalid("%d texts and %d labels", len(texts), len(labels))
	}
	var a arena
	defer a.free()
	defer runtime.KeepAlive(labelsOf)
	t, l := a.texts(texts), a.texts(labels)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_from_texts(t, l, C.size_t(len(texts)), labelsOf.c(), made)
	})
}

// FromPairs is FromTexts with the second text of each pair.
func FromPairs(texts, pairs, labels []string, labelsOf *Corpus) (*Corpus, error) {
	if len(pairs) != len(texts) || labels != nil && len(labels) != len(texts) {
		return nil, invalid("%d texts, %d pairs and %d labels", len(texts), len(pairs), len(labels))
	}
	var a arena
	defer a.free()
	defer runtime.KeepAlive(labelsOf)
	t, p, l := a.texts(texts), a.texts(pairs), a.texts(labels)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_from_pairs(t, p, l, C.size_t(len(texts)), labelsOf.c(), made)
	})
}

// FromLabelNames has no examples, but classes (or, by task, tags) of these names, for labelsOf.
func FromLabelNames(task Task, names []string) (*Corpus, error) {
	var a arena
	defer a.free()
	n := a.texts(names)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_from_label_names(C.uint32_t(task), n, C.size_t(len(names)), made)
	})
}

// Synthetic generates n labelled sentences of two classes. labelNoise is the fraction of wrong labels.
func Synthetic(n int, seed uint64, labelNoise float64) (*Corpus, error) {
	var a arena
	size := a.size("n", n)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_synthetic(size, C.uint64_t(seed), C.double(labelNoise), made)
	})
}

// SyntheticEntities generates n sentences with named entities.
func SyntheticEntities(n int, seed uint64) (*Corpus, error) {
	var a arena
	size := a.size("n", n)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_synthetic_entities(size, C.uint64_t(seed), made)
	})
}

// SyntheticQuestions generates n questions, each with its answer in a context.
func SyntheticQuestions(n int, seed uint64) (*Corpus, error) {
	var a arena
	size := a.size("n", n)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_synthetic_questions(size, C.uint64_t(seed), made)
	})
}

// PlainText is the texts of a corpus, for language modelling.
func (c *Corpus) PlainText() (*Corpus, error) {
	var a arena
	defer runtime.KeepAlive(c)
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_plain_text(c.c(), made)
	})
}

// Split divides a corpus in training and evaluation; equal texts stay on one side.
func (c *Corpus) Split(evalFraction float64, seed uint64) (train, eval *Corpus, err error) {
	defer runtime.KeepAlive(c)
	var first, second *C.mmopt_corpus
	err = take(C.mmopt_corpus_split(c.c(), C.double(evalFraction), C.uint64_t(seed), &first, &second))
	if err != nil {
		return nil, nil, err
	}
	return newCorpus(first), newCorpus(second), nil
}

// Concatenate makes one corpus of several of one task, with the same classes or none, for example
// of labelled and unlabelled examples.
func Concatenate(corpora ...*Corpus) (*Corpus, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(corpora)
	all := array[*C.mmopt_corpus](&a, len(corpora))
	for i, corpus := range corpora {
		unsafe.Slice(all, len(corpora))[i] = corpus.c()
	}
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_concatenate(all, C.size_t(len(corpora)), made)
	})
}

// Sample draws n examples at random, with the proportions of the classes; rest has all others.
func (c *Corpus) Sample(n int, seed uint64) (sample, rest *Corpus, err error) {
	defer runtime.KeepAlive(c)
	var a arena
	size := a.size("n", n)
	var first, second *C.mmopt_corpus
	err = a.call(func() *C.mmopt_error {
		return C.mmopt_corpus_sample(c.c(), size, C.uint64_t(seed), &first, &second)
	})
	if err != nil {
		return nil, nil, err
	}
	return newCorpus(first), newCorpus(second), nil
}

// Subset has the examples of these numbers, in this order.
func (c *Corpus) Subset(examples []int) (*Corpus, error) {
	defer runtime.KeepAlive(c)
	var a arena
	defer a.free()
	all := array[C.size_t](&a, len(examples))
	for i, example := range examples {
		unsafe.Slice(all, len(examples))[i] = a.size("an example", example)
	}
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_subset(c.c(), all, C.size_t(len(examples)), made)
	})
}

// WithoutLabels is a copy with the same classes whose examples have no labels.
func (c *Corpus) WithoutLabels() (*Corpus, error) {
	defer runtime.KeepAlive(c)
	var a arena
	return makeCorpus(&a, func(made **C.mmopt_corpus) *C.mmopt_error {
		return C.mmopt_corpus_without_labels(c.c(), made)
	})
}

// Len is the number of examples.
func (c *Corpus) Len() int {
	defer runtime.KeepAlive(c)
	return int(C.mmopt_corpus_n_examples(c.c()))
}

// MajorityFraction is the accuracy of always predicting the most frequent class.
func (c *Corpus) MajorityFraction() float64 {
	defer runtime.KeepAlive(c)
	return float64(C.mmopt_corpus_majority_fraction(c.c()))
}

// Labels are the names of the classes or tags, by id.
func (c *Corpus) Labels() []string {
	defer runtime.KeepAlive(c)
	labels := make([]string, int(C.mmopt_corpus_n_labels(c.c())))
	for i := range labels {
		labels[i] = C.GoString(C.mmopt_corpus_label_name(c.c(), C.size_t(i)))
	}
	return labels
}

// LabelCount is how many examples have a class, or words a tag; 0 for an id that there is not.
func (c *Corpus) LabelCount(label int) int {
	defer runtime.KeepAlive(c)
	return int(C.mmopt_corpus_label_count(c.c(), C.size_t(label)))
}

// Text is the text of an example.
func (c *Corpus) Text(example int) (string, error) {
	defer runtime.KeepAlive(c)
	var text *C.char
	if err := take(C.mmopt_corpus_text(c.c(), C.size_t(example), &text)); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// Pair is the second text of a pair, or the question about a context; ok is false without one.
func (c *Corpus) Pair(example int) (pair string, ok bool, err error) {
	defer runtime.KeepAlive(c)
	var text *C.char
	if err := take(C.mmopt_corpus_pair(c.c(), C.size_t(example), &text)); err != nil || text == nil {
		return "", false, err
	}
	return takeText(text), true, nil
}

// Label is the class of an example; -1 when it has none.
func (c *Corpus) Label(example int) (int, error) {
	defer runtime.KeepAlive(c)
	var label C.int64_t
	if err := take(C.mmopt_corpus_label(c.c(), C.size_t(example), &label)); err != nil {
		return 0, err
	}
	return int(label), nil
}

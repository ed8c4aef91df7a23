package mmopt

// #include <mmopt.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// TokenizerAlgorithm is how words are split into subwords.
type TokenizerAlgorithm uint32

// The algorithms.
const (
	// AutoAlgorithm is what the architecture's published models use.
	AutoAlgorithm TokenizerAlgorithm = C.MMOPT_TOKENIZER_ALGORITHM_AUTO
	WordPiece     TokenizerAlgorithm = C.MMOPT_TOKENIZER_ALGORITHM_WORD_PIECE
	ByteLevelBPE  TokenizerAlgorithm = C.MMOPT_TOKENIZER_ALGORITHM_BYTE_LEVEL_BPE
)

// SpecialToken is the role of a special token.
type SpecialToken uint32

// The roles.
const (
	PadToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_PAD
	UnkToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_UNK
	ClsToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_CLS
	SepToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_SEP
	MaskToken SpecialToken = C.MMOPT_SPECIAL_TOKEN_MASK
	BosToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_BOS
	EosToken  SpecialToken = C.MMOPT_SPECIAL_TOKEN_EOS
)

// TokenizerOptions say how a tokenizer is trained. Start from DefaultTokenizerOptions.
type TokenizerOptions struct {
	defaulted bool
	// Architecture decides the special tokens and where they go; default BERT.
	Architecture Architecture
	Algorithm    TokenizerAlgorithm
	// VocabSize is the greatest number of ids; default 8000.
	VocabSize int
	// MinFrequency of a pair of symbols that is merged; default 2.
	MinFrequency uint64
	// Lowercase words and strip accents first (WordPiece only); default true.
	Lowercase bool
	// ModelMaxLength of a sequence in tokens; default 512.
	ModelMaxLength int
}

// DefaultTokenizerOptions are the library's defaults.
func DefaultTokenizerOptions() TokenizerOptions {
	var raw C.mmopt_tokenizer_options
	C.mmopt_tokenizer_options_init(&raw)
	return TokenizerOptions{
		defaulted:      true,
		Architecture:   Architecture(raw.architecture),
		Algorithm:      TokenizerAlgorithm(raw.algorithm),
		VocabSize:      int(raw.vocab_size),
		MinFrequency:   uint64(raw.min_frequency),
		Lowercase:      raw.lowercase != 0,
		ModelMaxLength: int(raw.model_max_length),
	}
}

func (o *TokenizerOptions) c(a *arena) *C.mmopt_tokenizer_options {
	raw := array[C.mmopt_tokenizer_options](a, 1)
	C.mmopt_tokenizer_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "TokenizerOptions")
	raw.architecture, raw.algorithm = C.uint32_t(o.Architecture), C.uint32_t(o.Algorithm)
	raw.vocab_size = a.size("VocabSize", o.VocabSize)
	raw.min_frequency = C.uint64_t(o.MinFrequency)
	raw.lowercase = flag(o.Lowercase)
	raw.model_max_length = a.size("ModelMaxLength", o.ModelMaxLength)
	return raw
}

// Tokenizer turns text into ids and back. It never changes and may be shared.
type Tokenizer struct{ object }

func (t *Tokenizer) c() *C.mmopt_tokenizer {
	if t == nil {
		return nil
	}
	return (*C.mmopt_tokenizer)(t.address())
}

func freeTokenizer(p unsafe.Pointer) { C.mmopt_tokenizer_free((*C.mmopt_tokenizer)(p)) }

func newTokenizer(p *C.mmopt_tokenizer) *Tokenizer {
	t := &Tokenizer{}
	t.own(unsafe.Pointer(p), freeTokenizer)
	return t
}

// LoadTokenizer loads a tokenizer from a directory or file of published form.
func LoadTokenizer(path string) (*Tokenizer, error) {
	var a arena
	defer a.free()
	p := a.text(path)
	var made *C.mmopt_tokenizer
	if err := a.call(func() *C.mmopt_error { return C.mmopt_tokenizer_load(p, &made) }); err != nil {
		return nil, err
	}
	return newTokenizer(made), nil
}

// TrainTokenizer trains a tokenizer on all texts of a corpus.
func TrainTokenizer(corpus *Corpus, options *TokenizerOptions) (*Tokenizer, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(corpus)
	o := options.c(&a)
	var made *C.mmopt_tokenizer
	err := a.call(func() *C.mmopt_error { return C.mmopt_tokenizer_train(corpus.c(), o, &made) })
	if err != nil {
		return nil, err
	}
	return newTokenizer(made), nil
}

// Save writes the tokenizer into an existing directory, in published form.
func (t *Tokenizer) Save(directory string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	p := a.text(directory)
	return a.call(func() *C.mmopt_error { return C.mmopt_tokenizer_save(t.c(), p) })
}

// VocabSize is the number of ids.
func (t *Tokenizer) VocabSize() int {
	defer runtime.KeepAlive(t)
	return int(C.mmopt_tokenizer_vocab_size(t.c()))
}

// ModelMaxLength is the greatest length of a sequence in tokens.
func (t *Tokenizer) ModelMaxLength() int {
	defer runtime.KeepAlive(t)
	return int(C.mmopt_tokenizer_model_max_length(t.c()))
}

// SpecialTokenID is the id of a special token; false when there is none.
func (t *Tokenizer) SpecialTokenID(special SpecialToken) (uint32, bool) {
	defer runtime.KeepAlive(t)
	id := int64(C.mmopt_tokenizer_special_token_id(t.c(), C.uint32_t(special)))
	if id < 0 {
		return 0, false
	}
	return uint32(id), true
}

// Encoding is an encoded text.
type Encoding struct {
	// IDs of the tokens.
	IDs []uint32
	// TypeIDs are 0 for the first text and 1 for the second of a pair.
	TypeIDs []uint32
	// Offsets are start and end of each token in its text, in bytes.
	Offsets [][2]int
	// Truncated tokens were cut off.
	Truncated int
}

// Encode turns a text into at most maxLength ids; 0 takes the tokenizer's own limit.
func (t *Tokenizer) Encode(text string, maxLength int) (*Encoding, error) {
	return t.encode(text, nil, maxLength)
}

// EncodePair encodes a pair of texts.
func (t *Tokenizer) EncodePair(text, pair string, maxLength int) (*Encoding, error) {
	return t.encode(text, &pair, maxLength)
}

func (t *Tokenizer) encode(text string, pair *string, maxLength int) (*Encoding, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	first, n := a.text(text), a.size("maxLength", maxLength)
	var second *C.char
	if pair != nil {
		second = a.text(*pair)
	}
	var made *C.mmopt_encoding
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_tokenizer_encode(t.c(), first, second, n, &made)
	})
	if err != nil {
		return nil, err
	}
	defer C.mmopt_encoding_free(made)
	length := C.mmopt_encoding_length(made)
	e := &Encoding{
		IDs:       copied((*uint32)(C.mmopt_encoding_ids(made)), length),
		TypeIDs:   copied((*uint32)(C.mmopt_encoding_type_ids(made)), length),
		Offsets:   make([][2]int, int(length)),
		Truncated: int(C.mmopt_encoding_n_truncated(made)),
	}
	offsets := unsafe.Slice(C.mmopt_encoding_offsets(made), 2*int(length))
	for i := range e.Offsets {
		e.Offsets[i] = [2]int{int(offsets[2*i]), int(offsets[2*i+1])}
	}
	return e, nil
}

// Decode is the text of ids, with or without special tokens.
func (t *Tokenizer) Decode(ids []uint32, skipSpecialTokens bool) (string, error) {
	defer runtime.KeepAlive(t)
	p := (*C.uint32_t)(unsafe.SliceData(ids))
	var text *C.char
	err := take(C.mmopt_tokenizer_decode(t.c(), p, C.size_t(len(ids)), flag(skipSpecialTokens), &text))
	if err != nil {
		return "", err
	}
	return takeText(text), nil
}

// tokenizers is a C array of the tokenizers' addresses.
func (a *arena) tokenizers(tokenizers []*Tokenizer) **C.mmopt_tokenizer {
	all := array[*C.mmopt_tokenizer](a, len(tokenizers))
	for i, t := range tokenizers {
		unsafe.Slice(all, len(tokenizers))[i] = t.c()
	}
	return all
}

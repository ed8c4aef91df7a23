package mmopt

// #include <mmopt.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Task is what a model is trained for.
type Task uint32

// The tasks.
const (
	SequenceClassification Task = C.MMOPT_TASK_SEQUENCE_CLASSIFICATION
	TokenClassification    Task = C.MMOPT_TASK_TOKEN_CLASSIFICATION
	QuestionAnswering      Task = C.MMOPT_TASK_QUESTION_ANSWERING
	MaskedLM               Task = C.MMOPT_TASK_MASKED_LM
	CausalLM               Task = C.MMOPT_TASK_CAUSAL_LM
)

// LossKind is a loss that the library attaches to a graph.
type LossKind uint32

// The losses.
const (
	SequenceClassificationLoss LossKind = C.MMOPT_LOSS_SEQUENCE_CLASSIFICATION
	TokenClassificationLoss    LossKind = C.MMOPT_LOSS_TOKEN_CLASSIFICATION
	QuestionAnsweringLoss      LossKind = C.MMOPT_LOSS_QUESTION_ANSWERING
	MaskedLMLoss               LossKind = C.MMOPT_LOSS_MASKED_LM
	CausalLMLoss               LossKind = C.MMOPT_LOSS_CAUSAL_LM
	MeanSquaredError           LossKind = C.MMOPT_LOSS_MEAN_SQUARED_ERROR
	// OutputLoss: the model has its loss as an output.
	OutputLoss LossKind = C.MMOPT_LOSS_OUTPUT
)

// Loss says how a model's loss is computed. Start from DefaultLoss.
type Loss struct {
	defaulted bool
	// Kind; default SequenceClassificationLoss.
	Kind LossKind
	// LabelSmoothing: the share of a label's weight that is spread over all classes.
	LabelSmoothing float64
	// IgnoreIndex: rows of this label count nothing; default -100.
	IgnoreIndex int64
	// ClassWeights, one for each class; nil: all 1.
	ClassWeights []float32
	// Output that the loss looks at; empty: logits, or start_logits and end_logits, or the only
	// float output.
	Output string
}

// DefaultLoss has the library's defaults.
func DefaultLoss() Loss {
	var raw C.mmopt_loss_options
	C.mmopt_loss_options_init(&raw)
	return Loss{
		defaulted:      true,
		Kind:           LossKind(raw.kind),
		LabelSmoothing: float64(raw.label_smoothing),
		IgnoreIndex:    int64(raw.ignore_index),
	}
}

func (l *Loss) c(a *arena) *C.mmopt_loss_options {
	raw := array[C.mmopt_loss_options](a, 1)
	C.mmopt_loss_options_init(raw)
	if l == nil {
		return raw
	}
	a.defaulted(l.defaulted, "Loss")
	raw.kind = C.uint32_t(l.Kind)
	raw.label_smoothing = C.double(l.LabelSmoothing)
	raw.ignore_index = C.int64_t(l.IgnoreIndex)
	raw.class_weights = (*C.float)(pinnedArray(a, l.ClassWeights))
	raw.n_class_weights = C.size_t(len(l.ClassWeights))
	raw.output = a.optional(l.Output)
	return raw
}

// ModelConfig is the configuration of a fresh model. Start from DefaultModelConfig.
type ModelConfig struct {
	defaulted    bool
	Architecture Architecture
	Task         Task
	// Labels: the number of classes or tags; default 2.
	Labels int
	// VocabSize: ids of the vocabulary; default 8000.
	VocabSize int
	// Layers: transformer blocks; default 2.
	Layers int
	// HiddenSize: the width, a multiple of Heads; default 128.
	HiddenSize int
	// Heads of the attention; default 4.
	Heads int
	// IntermediateSize: the width inside the feed-forward blocks; 0 (default): 4 times HiddenSize.
	IntermediateSize int
	// Positions: the longest sequence in tokens; default 128.
	Positions int
	// Dropout: every dropout probability; default 0.1.
	Dropout float64
	// PadTokenID: the padding token's id; -1 (default): the architecture's.
	PadTokenID int64
}

// DefaultModelConfig is that of a small model.
func DefaultModelConfig() ModelConfig {
	var raw C.mmopt_model_config
	C.mmopt_model_config_init(&raw)
	return ModelConfig{
		defaulted:        true,
		Architecture:     Architecture(raw.architecture),
		Task:             Task(raw.task),
		Labels:           int(raw.n_labels),
		VocabSize:        int(raw.vocab_size),
		Layers:           int(raw.n_layers),
		HiddenSize:       int(raw.hidden_size),
		Heads:            int(raw.n_heads),
		IntermediateSize: int(raw.intermediate_size),
		Positions:        int(raw.n_positions),
		Dropout:          float64(raw.dropout),
		PadTokenID:       int64(raw.pad_token_id),
	}
}

func (m *ModelConfig) c(a *arena) *C.mmopt_model_config {
	raw := array[C.mmopt_model_config](a, 1)
	C.mmopt_model_config_init(raw)
	if m == nil {
		return raw
	}
	a.defaulted(m.defaulted, "ModelConfig")
	raw.architecture, raw.task = C.uint32_t(m.Architecture), C.uint32_t(m.Task)
	raw.n_labels = a.size("Labels", m.Labels)
	raw.vocab_size = a.size("VocabSize", m.VocabSize)
	raw.n_layers = a.size("Layers", m.Layers)
	raw.hidden_size = a.size("HiddenSize", m.HiddenSize)
	raw.n_heads = a.size("Heads", m.Heads)
	raw.intermediate_size = a.size("IntermediateSize", m.IntermediateSize)
	raw.n_positions = a.size("Positions", m.Positions)
	raw.dropout = C.double(m.Dropout)
	raw.pad_token_id = C.int64_t(m.PadTokenID)
	return raw
}

// Model says what a trainer needs to know of one model. Its files are read when the trainer is
// created.
type Model struct{ object }

func (m *Model) c() *C.mmopt_model {
	if m == nil {
		return nil
	}
	return (*C.mmopt_model)(m.address())
}

func freeModel(p unsafe.Pointer) { C.mmopt_model_free((*C.mmopt_model)(p)) }

// makeModel runs a call that makes a model; after runs when the model is closed.
func makeModel(
	a *arena, name string, f func(*C.char, **C.mmopt_model) *C.mmopt_error, after ...func(),
) (*Model, error) {
	n := a.text(name)
	var made *C.mmopt_model
	if err := a.call(func() *C.mmopt_error { return f(n, &made) }); err != nil {
		return nil, err
	}
	m := &Model{}
	m.own(unsafe.Pointer(made), freeModel, after...)
	return m, nil
}

// ModelFromDirectory is a model of published form: config.json and model.safetensors.
func ModelFromDirectory(name, directory string) (*Model, error) {
	var a arena
	defer a.free()
	d := a.text(directory)
	return makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_from_directory(n, d, made)
	})
}

// ModelFromONNX is a model from the file of a forward ONNX graph, with its loss (nil: DefaultLoss).
func ModelFromONNX(name, path string, loss *Loss) (*Model, error) {
	var a arena
	defer a.free()
	p := a.text(path)
	m, err := makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_from_onnx(n, p, made)
	})
	return m.withLoss(loss, err)
}

// ModelFromONNXBytes is a model from a forward ONNX graph in memory, with its loss.
func ModelFromONNXBytes(name string, graph []byte, loss *Loss) (*Model, error) {
	var a arena
	defer a.free()
	p, size := unsafe.Pointer(pinnedArray(&a, graph)), C.size_t(len(graph))
	m, err := makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_from_onnx_bytes(n, p, size, made)
	})
	return m.withLoss(loss, err)
}

func (m *Model) withLoss(loss *Loss, err error) (*Model, error) {
	if err != nil {
		return nil, err
	}
	if err := m.SetLoss(loss); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// ModelFromConfigJSON is a fresh model from the text of a published config.json.
func ModelFromConfigJSON(name, json string) (*Model, error) {
	var a arena
	defer a.free()
	j := a.text(json)
	return makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_from_config_json(n, j, made)
	})
}

// NewModel is a fresh model; nil config: a small BERT.
func NewModel(name string, config *ModelConfig) (*Model, error) {
	var a arena
	defer a.free()
	s := config.c(&a)
	return makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_create(n, s, made)
	})
}

// ModelForCorpus is a fresh model that fits a tokenizer and a corpus.
func ModelForCorpus(name string, config *ModelConfig, tokenizer *Tokenizer, corpus *Corpus) (*Model, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(tokenizer)
	defer runtime.KeepAlive(corpus)
	s := config.c(&a)
	return makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_for_corpus(n, s, tokenizer.c(), corpus.c(), made)
	})
}

// ModelPretrainedForCorpus is the model in a directory, with the task and the classes of a corpus.
// tokenizer is that of the directory.
func ModelPretrainedForCorpus(name, directory string, tokenizer *Tokenizer, corpus *Corpus) (*Model, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(tokenizer)
	defer runtime.KeepAlive(corpus)
	d := a.text(directory)
	return makeModel(&a, name, func(n *C.char, made **C.mmopt_model) *C.mmopt_error {
		return C.mmopt_model_pretrained_for_corpus(n, d, tokenizer.c(), corpus.c(), made)
	})
}

// SetTask sets the task and, for classification, the number of classes or tags. Weights of another
// task keep their body and get a newly initialised head.
func (m *Model) SetTask(task Task, labels int) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_task(m.c(), C.uint32_t(task), C.size_t(labels)))
}

// SetLoss sets the loss; nil: DefaultLoss.
func (m *Model) SetLoss(loss *Loss) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	l := loss.c(&a)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_set_loss(m.c(), l) })
}

// SetWeight sets the weight among the models; only ratios matter. Default 1.
func (m *Model) SetWeight(weight float64) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_weight(m.c(), C.double(weight)))
}

// SetDropout replaces every dropout probability.
func (m *Model) SetDropout(dropout float64) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_dropout(m.c(), C.double(dropout)))
}

// SetSeed sets the seed of fresh weights and of dropout. Default 0.
func (m *Model) SetSeed(seed uint64) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_seed(m.c(), C.uint64_t(seed)))
}

// SetFreshHead sets whether the head is newly initialised although the directory has one of this
// task, for example for another number of classes. Default false.
func (m *Model) SetFreshHead(fresh bool) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_fresh_head(m.c(), flag(fresh)))
}

// SetFreshWeights sets whether all weights of a directory are newly initialised and none are read.
// Default false: a directory without weights is an error.
func (m *Model) SetFreshWeights(fresh bool) error {
	defer runtime.KeepAlive(m)
	return take(C.mmopt_model_set_fresh_weights(m.c(), flag(fresh)))
}

// SetLabelNames names the classes or tags in the order of their ids, for example by Corpus.Labels.
// Saved models have the names.
func (m *Model) SetLabelNames(names []string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	n := a.texts(names)
	return a.call(func() *C.mmopt_error {
		return C.mmopt_model_set_label_names(m.c(), n, C.size_t(len(names)))
	})
}

// SetTokenizer tells the model its vocabulary, which the option start needs. ModelForCorpus does it.
func (m *Model) SetTokenizer(tokenizer *Tokenizer) error {
	defer runtime.KeepAlive(m)
	defer runtime.KeepAlive(tokenizer)
	return take(C.mmopt_model_set_tokenizer(m.c(), tokenizer.c()))
}

// Freeze leaves parameters as they are whose name matches the pattern (* and ?).
func (m *Model) Freeze(pattern string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	p := a.text(pattern)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_freeze(m.c(), p) })
}

// TrainOnly trains only parameters whose name matches this pattern, or that of another call.
func (m *Model) TrainOnly(pattern string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	p := a.text(pattern)
	return a.call(func() *C.mmopt_error { return C.mmopt_model_train_only(m.c(), p) })
}

// LabelName is the name of a class.
func (m *Model) LabelName(label int) (string, error) {
	defer runtime.KeepAlive(m)
	var name *C.char
	if err := take(C.mmopt_model_label_name(m.c(), C.size_t(label), &name)); err != nil {
		return "", err
	}
	return takeText(name), nil
}

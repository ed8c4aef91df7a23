//go:build cgo

package mmopt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// joint is two tiny models and a loader over generated sentences.
type joint struct {
	*Trainer
	loader     *Loader
	tokenizers []*Tokenizer
	corpus     *Corpus
}

func setUp(t testing.TB) *joint {
	return setUpWith(t, DefaultTrainerOptions(PresetDefault))
}

func setUpWith(t testing.TB, options TrainerOptions) *joint {
	if os.Getenv("MMOPT_ORT_LIB") == "" {
		t.Skip("not run: no ONNX Runtime, MMOPT_ORT_LIB is not set")
	}
	j := &joint{corpus: must(Synthetic(64, 1, 0))(t)}
	t.Cleanup(func() { ok(t, j.corpus.Close()) })
	var models []*Model
	for _, a := range []Architecture{BERT, GPT2} {
		words := DefaultTokenizerOptions()
		words.Architecture, words.VocabSize, words.ModelMaxLength = a, 400, 32
		tokenizer := must(TrainTokenizer(j.corpus, &words))(t)
		t.Cleanup(func() { ok(t, tokenizer.Close()) })
		sizes := DefaultModelConfig()
		sizes.Architecture, sizes.Layers, sizes.HiddenSize, sizes.Heads = a, 1, 16, 2
		model := must(ModelForCorpus(a.String(), &sizes, tokenizer, j.corpus))(t)
		defer model.Close()
		j.tokenizers, models = append(j.tokenizers, tokenizer), append(models, model)
	}
	ok(t, models[0].SetWeight(2))
	ok(t, models[0].SetSeed(7))
	ok(t, models[0].SetDropout(0.05))
	ok(t, models[0].Freeze("*.token_type_embeddings.*"))
	equal(t, must(models[0].LabelName(1))(t), "1")
	walk := DefaultLoaderOptions()
	walk.BatchSize, walk.Seed, walk.PadToMultipleOf = 8, 3, 32
	j.loader = must(NewLoader(j.corpus, j.tokenizers, &walk))(t)
	t.Cleanup(func() { ok(t, j.loader.Close()) })
	options.LearningRate = 3e-3
	j.Trainer = must(NewTrainer(models, &options))(t)
	t.Cleanup(func() { ok(t, j.Close()) })
	return j
}

func (j *joint) batch(t testing.TB) *Batch {
	batch := must(j.loader.Next())(t)
	t.Cleanup(func() { ok(t, batch.Close()) })
	return batch
}

var background = context.Background()

func TestModelsAreEvaluatedByTheMeansOfTheirWeights(t *testing.T) {
	options := DefaultTrainerOptions(PresetDefault)
	options.OptionsJSON = `{"ema_decay": 0.9}`
	j := setUpWith(t, options)
	batch := j.batch(t)
	must(j.ForwardBackward(background, batch))(t)
	must(j.Step(background))(t)
	loss := func() float64 { return must(j.Evaluate(background, 0, batch))(t).Loss }
	own := loss()
	ok(t, j.WithEMAWeights(func() error {
		if loss() == own {
			t.Error("the weights are their means")
		}
		_, err := j.Step(background)
		wants(t, err, ErrState)
		return nil
	}))
	equal(t, loss(), own)
	failed := errors.New("failed")
	equal(t, j.WithEMAWeights(func() error { return failed }), failed)
	equal(t, loss(), own)
	alone := setUpWith(t, DefaultTrainerOptions(PresetIndependent))
	wants(t, alone.UseEMAWeights(true), ErrState)
}

func TestModelsLearnFromEachOther(t *testing.T) {
	options := DefaultTrainerOptions(PresetDefault)
	options.OptionsJSON = `{"mutual": {"teacher": "peers"}}`
	j := setUpWith(t, options)
	for _, result := range must(j.ForwardBackward(background, j.batch(t)))(t) {
		if result.MutualLoss <= 0 {
			t.Fatalf("%+v", result)
		}
	}
	j = setUpWith(t, DefaultTrainerOptions(PresetIndependent))
	for _, result := range must(j.ForwardBackward(background, j.batch(t)))(t) {
		equal(t, result.MutualLoss, 0.0)
	}
}

func TestAFreshModelStartsFromOneWithWeights(t *testing.T) {
	j := setUp(t)
	dir := t.TempDir()
	ok(t, j.SaveModel(0, dir))
	bert := must(ModelFromDirectory("bert", dir))(t)
	defer bert.Close()
	sizes := DefaultModelConfig()
	sizes.Architecture, sizes.HiddenSize, sizes.Heads = GPT2, 8, 2
	gpt2 := must(ModelForCorpus("gpt2", &sizes, j.tokenizers[1], j.corpus))(t)
	defer gpt2.Close()
	options := DefaultTrainerOptions(PresetDefault)
	options.OptionsJSON = `{"start": "pretrained"}`
	_, err := NewTrainer([]*Model{bert, gpt2}, &options)
	wants(t, err, ErrInvalidArgument)
	ok(t, bert.SetTokenizer(j.tokenizers[0]))
	trainer := must(NewTrainer([]*Model{bert, gpt2}, &options))(t)
	defer trainer.Close()
	if plan := must(trainer.Plan())(t); !strings.Contains(plan, "token embedding from 'bert', projected 16 -> 8") {
		t.Fatal(plan)
	}
}

func TestWeightsOfOneTaskTrainForAnother(t *testing.T) {
	j := setUp(t)
	dir := t.TempDir()
	ok(t, j.SaveModel(0, dir))
	bert := must(ModelFromDirectory("bert", dir))(t)
	defer bert.Close()
	ok(t, bert.SetTask(SequenceClassification, 3))
	ok(t, bert.SetLabelNames([]string{"a", "b", "c"}))
	wants(t, bert.SetLabelNames(nil), ErrInvalidArgument)
	_, err := NewTrainer([]*Model{bert}, nil)
	wants(t, err, ErrShape)
	ok(t, bert.SetFreshHead(true))
	equal(t, must(bert.LabelName(2))(t), "c")
	trainer := must(NewTrainer([]*Model{bert}, nil))(t)
	defer trainer.Close()
	ok(t, trainer.SaveModel(0, dir))
	again := must(ModelFromDirectory("bert", dir))(t)
	defer again.Close()
	equal(t, must(again.LabelName(1))(t), "b")
	ok(t, again.SetFreshWeights(true))
	if report := must(again.Report())(t); !strings.Contains(report, "newly initialised: all") {
		t.Fatal(report)
	}
}

func TestTraining(t *testing.T) {
	j := setUp(t)
	_, err := j.Step(background)
	wants(t, err, ErrState)
	var losses []float64
	for range 5 {
		sum := 0.0
		for batch, err := range j.loader.Batches() {
			ok(t, err)
			if sum == 0 && len(losses) == 0 {
				memory := must(j.MemoryReportBatch(batch))(t)
				if strings.Contains(memory, `"pass":0,`) {
					t.Fatal(memory)
				}
			}
			results := must(j.ForwardBackward(background, batch))(t)
			report := must(j.Step(background))(t)
			equal(t, report.Updated, 2)
			equal(t, results[0].Labels, 8)
			sum += results[0].Loss + results[1].Loss
		}
		losses = append(losses, sum)
	}
	if losses[4] >= losses[0] {
		t.Fatalf("losses %v", losses)
	}
	equal(t, j.Steps(), 40)
	equal(t, j.loader.Epoch(), 5)
	equal(t, j.loader.Len(), 8)
	rates := must(j.Rates(0))(t)
	if rates.Weight < 0.6 || rates.Base != 3e-3 {
		t.Fatalf("%+v", rates)
	}
	if plan := must(j.Plan())(t); !strings.Contains(plan, "attention query") {
		t.Fatal(plan)
	}
	equal(t, must(j.PlanJSON())(t)[0], '{')
	if report := must(j.MemoryReport(nil))(t); !strings.Contains(report, `"pass":0,`) {
		t.Fatal(report)
	}

	dir := t.TempDir()
	state := must(j.loader.State())(t)
	ok(t, j.SaveCheckpoint(filepath.Join(dir, "c"), state))
	equal(t, must(j.Resume(filepath.Join(dir, "c")))(t), state)
	keep := DefaultCheckpointOptions()
	keep.KeepLast, keep.KeepBest, keep.Score, keep.LowerIsBetter = 1, 1, 0.25, true
	keep.Asynchronous = true
	equal(t, must(j.SaveCheckpointWith(filepath.Join(dir, "kept"), "mine", &keep))(t), "")
	if place := must(j.WaitForCheckpoint())(t); !strings.Contains(place, "step-") {
		t.Fatal(place)
	}
	equal(t, must(j.WaitForCheckpoint())(t), "")
	keep.Asynchronous = false
	place := must(j.SaveCheckpointWith(filepath.Join(dir, "kept"), "mine", &keep))(t)
	all := must(ListCheckpoints(filepath.Join(dir, "kept")))(t)
	if len(all) != 1 || all[0].Path != place || *all[0].Score != 0.25 || all[0].Damage != "" {
		t.Fatalf("%+v", all)
	}
	equal(t, len(must(PruneCheckpoints(filepath.Join(dir, "c"), 1))(t)), 0)
	ok(t, j.loader.SetEpoch(0))
	ok(t, j.loader.Restore(state))
	equal(t, j.loader.Epoch(), 5)
	ok(t, j.SaveModel(0, filepath.Join(dir, "bert")))
	ok(t, j.SaveONNX(0, filepath.Join(dir, "bert.onnx")))
	texts := must(EncodeBatch(j.tokenizers[:1], []string{"a splendid film", "dull"}, 0))(t)
	defer texts.Close()
	a := must(j.Evaluate(background, 0, texts))(t)
	logits, found := a.Output("logits")
	if !found || len(logits.Rows()) != 2 || !math.IsNaN(a.Loss) {
		t.Fatalf("%+v", a)
	}
	loss := DefaultLoss()
	loss.LabelSmoothing, loss.ClassWeights = 0.1, []float32{1, 2}
	files, onnx := os.DirFS(dir), filepath.Join(dir, "bert.onnx")
	for name, model := range map[string]*Model{
		"directory":  must(ModelFromDirectory("again", filepath.Join(dir, "bert")))(t),
		"fs":         must(ModelFromDirectoryFS("again", files, "bert"))(t),
		"onnx":       must(ModelFromONNX("again", onnx, &loss))(t),
		"onnx in fs": must(ModelFromONNXFS("again", files, "bert.onnx", nil))(t),
	} {
		again := must(NewTrainer([]*Model{model}, nil))(t)
		model.Close()
		b := must(again.Evaluate(background, 0, texts))(t)
		other, _ := b.Output("logits")
		if name != "onnx" && name != "onnx in fs" {
			equal(t, fmt.Sprint(other.Data), fmt.Sprint(logits.Data))
		}
		for i, x := range other.Float32s() {
			if math.Abs(float64(x-logits.Float32s()[i])) > 1e-4 {
				t.Fatal(name, other.Data, logits.Data)
			}
		}
		again.Close()
	}
	_, err = ModelFromONNXBytes("again", []byte("no graph"), &Loss{})
	wants(t, err, ErrInvalidArgument)
}

// Options that act on reported scores, and those whose result is read.
func TestFeedback(t *testing.T) {
	options := DefaultTrainerOptions(PresetDefault)
	options.LRSchedule = LRSchedulePlateau
	options.OptionsJSON = `{"weighting": "validation", "metrics_every": 1,
		"plateau": {"factor": 0.5, "patience": 0}}`
	j := setUpWith(t, options)
	_, err := j.MetricsJSON()
	wants(t, err, ErrState)
	wants(t, j.ReportValidation([]float64{0.5}), ErrInvalidArgument)
	ok(t, j.ReportValidation([]float64{0.9, 0.5}))
	ok(t, j.ReportValidation([]float64{0.9, 0.5}))
	must(j.ForwardBackward(background, j.batch(t)))(t)
	must(j.Step(background))(t)
	if rates := must(j.Rates(0))(t); rates.Weight < 0.75 || rates.Schedule != 0.5 {
		t.Fatalf("%+v", rates)
	}
	if metrics := must(j.MetricsJSON())(t); !strings.Contains(metrics, `"step":1`) {
		t.Fatal(metrics)
	}
	options.OptionsJSON = `{"weightin": "validation"}`
	_, err = NewTrainer(nil, &options)
	wants(t, err, ErrInvalidArgument)
	if !strings.Contains(err.Error(), "the nearest known one is 'weighting'") {
		t.Fatal(err)
	}
}

func TestParameters(t *testing.T) {
	j := setUp(t)
	names := ""
	n := 0
	for i, name := range j.Models() {
		names += name + " "
		for p, err := range j.Parameters(i) {
			ok(t, err)
			n++
			ok(t, p.View(func(value Tensor) {
				equal(t, value.Name, p.Name)
				equal(t, fmt.Sprint(value.Shape), fmt.Sprint(p.Shape))
			}))
		}
	}
	equal(t, names, "bert gpt2 ")
	equal(t, must(j.ModelIndex("gpt2"))(t), 1)
	if n < 20 {
		t.Fatalf("%d parameters", n)
	}
	p := must(j.Parameter(1, "transformer.ln_f.bias"))(t)
	_, err := p.Gradient()
	wants(t, err, ErrState)
	_, err = j.Parameter(1, "yak")
	wants(t, err, ErrNotFound)
	must(j.ForwardBackward(background, j.batch(t)))(t)
	gradient := must(p.Gradient())(t)
	equal(t, len(gradient.Float32s()), 16)
	ones := make([]float32, 16)
	for i := range ones {
		ones[i] = 1
	}
	ok(t, p.SetGradient(ones))
	ok(t, p.ViewGradient(func(g Tensor) { equal(t, g.Float32s()[5], 1) }))
	ok(t, p.SetValue(ones))
	if p.SetValue(ones[:3]) == nil {
		t.Fatal("three elements for sixteen")
	}
	equal(t, must(j.SetTrainable("gpt2", "*.ln_f.*", false))(t), 2)
	must(j.Step(background))(t)
	equal(t, must(p.Value())(t).Float32s()[5], 1)
	ok(t, j.SetLearningRate(1e-4))
	ok(t, j.SetModelWeight(0, 3))
	ok(t, j.LogMetrics([]float64{1, 2}))
	wants(t, j.SetModelWeight(-1, 3), ErrInvalidArgument)
}

func TestHostTensors(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	equal(t, batch.Models(), 2)
	equal(t, batch.Rows(1), 8)
	equal(t, len(must(batch.Examples(1))(t)), 8)
	bert, gpt2 := must(batch.Tensors(0))(t), must(batch.Tensors(1))(t)
	ok(t, j.Prepare(1, gpt2))
	wants(t, j.Prepare(2, gpt2), ErrInvalidArgument)
	one := must(j.ForwardBackwardModel(background, 1, gpt2))(t)
	equal(t, one.Labels, 8)
	ok(t, j.ZeroGrad())
	all := must(j.ForwardBackwardAll(background, [][]Tensor{bert, gpt2}))(t)
	equal(t, len(all), 2)
	must(j.Step(background))(t)
	first := must(j.Evaluate(background, 0, batch))(t)
	second := must(j.EvaluateTensors(background, 0, bert))(t)
	equal(t, first.Loss, second.Loss)
	gpt2[0].Data = []string{"x"}
	_, err := j.ForwardBackwardModel(background, 1, gpt2)
	wants(t, err, ErrInvalidArgument)
	_, err = j.ForwardBackwardAll(background, nil)
	wants(t, err, ErrInvalidArgument)
}

func TestContextCancels(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(background)
	cancel(cause)
	_, err := j.ForwardBackward(ctx, batch)
	if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	_, err = j.Step(ctx)
	if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// Cancelled at some moment of a run or after it; the trainer works afterwards either way.
	for range 10 {
		ctx, cancel := context.WithCancel(background)
		go cancel()
		_, err := j.ForwardBackward(ctx, batch)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	ok(t, j.ZeroGrad())
	must(j.ForwardBackward(background, batch))(t)
	must(j.Step(background))(t)
}

func TestCancelToken(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	cancelToken := must(j.CancelToken())(t)
	defer cancelToken.Close()
	done := make(chan error)
	go func() { done <- cancelToken.Cancel() }()
	ok(t, <-done)
	_, err := j.ForwardBackward(background, batch)
	wants(t, err, ErrCancelled)
	// A context that ends meanwhile does not undo it.
	ctx, cancel := context.WithCancel(background)
	ok(t, j.SetProgressCallback(func(Progress) error { cancel(); return nil }))
	_, err = j.ForwardBackward(ctx, batch)
	if err == nil {
		t.Fatal("a cancelled pass succeeded")
	}
	ok(t, j.SetProgressCallback(nil))
	_, err = j.ForwardBackward(background, batch)
	wants(t, err, ErrCancelled)
	ok(t, cancelToken.Reset())
	must(j.ForwardBackward(background, batch))(t)
	j.Close()
	ok(t, cancelToken.Cancel())
}

func TestCallbacks(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	var phases []Progress
	ok(t, j.SetProgressCallback(func(p Progress) error { phases = append(phases, p); return nil }))
	var rated []string
	ok(t, j.SetRateCallback(func(model string, step uint64, rate float64) float64 {
		rated = append(rated, fmt.Sprint(model, step))
		return 1e-5
	}))
	var messages []string
	ok(t, j.SetLogCallback(LogWarning, func(level LogLevel, message string) {
		messages = append(messages, fmt.Sprint(level, message))
	}))
	must(j.ForwardBackward(background, batch))(t)
	p := must(j.Parameter(0, "classifier.bias"))(t)
	nan := float32(math.NaN())
	ok(t, p.SetGradient([]float32{nan, nan}))
	equal(t, must(j.Step(background))(t).Skipped, 1)
	equal(t, fmt.Sprint(phases), "[{PhaseForwardBackward -1 0} {PhaseStep -1 0}]")
	equal(t, fmt.Sprint(rated), "[bert1 gpt21]")
	equal(t, must(j.Rates(1))(t).Effective, 1e-5)
	if len(messages) != 1 || !strings.Contains(messages[0], "skipped") {
		t.Fatal(messages)
	}
	stop := errors.New("stop")
	ok(t, j.SetProgressCallback(func(Progress) error { return stop }))
	_, err := j.ForwardBackward(background, batch)
	equal(t, err, stop)
	_, err = j.Evaluate(background, 0, batch)
	equal(t, err, stop)
	ok(t, j.SetProgressCallback(nil))
	ok(t, j.SetRateCallback(nil))
	ok(t, j.SetLogCallback(LogOff, nil))
	must(j.ForwardBackward(background, batch))(t)
	must(j.Step(background))(t)
	equal(t, len(rated), 2)
}

// panics gives what f panics with.
func panics(f func()) (with any) {
	defer func() { with = recover() }()
	f()
	return nil
}

func TestPanicsOfCallbacksGoOn(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	ok(t, j.SetProgressCallback(func(Progress) error { panic("progress") }))
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	equal(t, panics(func() { _, _ = j.ForwardBackward(ctx, batch) }), "progress")
	ok(t, j.SetProgressCallback(nil))
	_, err := j.Step(background)
	wants(t, err, ErrState)

	must(j.ForwardBackward(background, batch))(t)
	p := must(j.Parameter(1, "transformer.ln_f.bias"))(t)
	before := must(p.Value())(t).Float32s()[0]
	ok(t, j.SetRateCallback(func(string, uint64, float64) float64 { panic("rate") }))
	equal(t, panics(func() { _, _ = j.Step(background) }), "rate")
	equal(t, must(p.Value())(t).Float32s()[0], before)
	ok(t, j.SetRateCallback(nil))
	must(j.Step(background))(t)

	panicking := false
	ok(t, j.SetLogCallback(LogWarning, func(LogLevel, string) {
		if panicking {
			panic("log")
		}
	}))
	must(j.ForwardBackward(background, batch))(t)
	inf := make([]float32, 16)
	inf[0] = float32(math.Inf(1))
	ok(t, p.SetGradient(inf))
	panicking = true
	equal(t, panics(func() { _, _ = j.Step(background) }), "log")
	equal(t, j.Steps(), 2)
}

func TestClosedTrainers(t *testing.T) {
	j := setUp(t)
	batch := j.batch(t)
	j.Close()
	_, err := j.ForwardBackward(background, batch)
	wants(t, err, ErrInvalidArgument)
	_, err = j.Step(background)
	wants(t, err, ErrInvalidArgument)
	wants(t, j.SetProgressCallback(func(Progress) error { return nil }), ErrInvalidArgument)
	equal(t, j.Len(), 0)
}

func TestFreshModels(t *testing.T) {
	j := setUp(t)
	sizes := DefaultModelConfig()
	sizes.Layers, sizes.VocabSize = 1, 400
	config := `{"model_type": "bert", "architectures": ["BertForSequenceClassification"],
		"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 32, "max_position_embeddings": 64}`
	first, second := must(NewModel("sizes", &sizes))(t), must(ModelFromConfigJSON("config", config))(t)
	ok(t, first.SetTask(SequenceClassification, 2))
	ok(t, first.SetLoss(nil))
	ok(t, second.TrainOnly("classifier.*"))
	trainer := must(NewTrainer([]*Model{first, second}, nil))(t)
	defer trainer.Close()
	tensors := must(j.batch(t).Tensors(0))(t)
	must(trainer.ForwardBackwardAll(background, [][]Tensor{tensors, tensors}))(t)
	equal(t, must(trainer.Step(background))(t).Updated, 2)
	trainable := 0
	for p, err := range trainer.Parameters(1) {
		ok(t, err)
		if p.Trainable {
			trainable++
		}
	}
	equal(t, trainable, 2)
	if RuntimeVersion() == "" || RuntimePath() == "" {
		t.Fatal("no runtime")
	}
}

//go:build cgo

package mmopt

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/fstest"
)

func TestErrors(t *testing.T) {
	_, err := ReadClassification("/none.tsv", nil)
	wants(t, err, ErrNotFound)
	_, err = ReadTokenClassification("/none.txt", nil)
	wants(t, err, ErrNotFound)
	_, err = ReadQuestionAnswering("/none.json")
	wants(t, err, ErrNotFound)
	_, err = ReadPlainText("/none.txt", SampleByLine)
	wants(t, err, ErrNotFound)
	_, err = ParseArchitecture("yak")
	wants(t, err, ErrNotFound)
	_, err = FromTexts([]string{"a"}, []string{"x", "y"}, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = FromTexts([]string{"a\x00b"}, nil, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = Synthetic(-1, 0, 0)
	wants(t, err, ErrInvalidArgument)
	_, err = LoadTokenizer("/none")
	wants(t, err, ErrNotFound)
	_, err = TrainTokenizer(nil, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = NewTrainer(nil, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = ModelFromConfigJSON("m", "{")
	wants(t, err, ErrInvalidData)
	if LoadRuntime("/none/libonnxruntime.so") == nil {
		t.Fatal("no error for a file that is missing")
	}
	equal(t, GPT2.String(), "gpt2")
	equal(t, must(ParseArchitecture("roberta"))(t), RoBERTa)
	if VersionNumber() == 0 || Version() == "" {
		t.Fatal("no version")
	}
}

func TestOptionsStartFromTheirDefaults(t *testing.T) {
	corpus := must(Synthetic(8, 1, 0))(t)
	defer corpus.Close()
	_, err := TrainTokenizer(corpus, &TokenizerOptions{VocabSize: 100})
	wants(t, err, ErrInvalidArgument)
	_, err = NewLoader(corpus, nil, &LoaderOptions{})
	wants(t, err, ErrInvalidArgument)
	_, err = NewModel("m", &ModelConfig{Layers: 1})
	wants(t, err, ErrInvalidArgument)
	_, err = NewTrainer(nil, &TrainerOptions{LearningRate: 1})
	wants(t, err, ErrInvalidArgument)
	model := must(NewModel("m", nil))(t)
	defer model.Close()
	wants(t, model.SetLoss(&Loss{}), ErrInvalidArgument)
	options := DefaultLoaderOptions()
	options.BatchSize = -1
	_, err = NewLoader(corpus, nil, &options)
	wants(t, err, ErrInvalidArgument)
}

func TestCorpora(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		ok(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	tagged := must(ReadTokenClassification(write("t.txt", "a X\nb Y\n\nc X\n"), nil))(t)
	defer tagged.Close()
	equal(t, fmt.Sprint(tagged.Len(), tagged.Labels(), tagged.LabelCount(0)), "2 [X Y] 2")
	heldOut := must(ReadTokenClassification(write("h.txt", "a Y\n"), tagged))(t)
	defer heldOut.Close()
	equal(t, len(heldOut.Labels()), 2)
	questions := must(ReadQuestionAnswering(write("q.jsonl", `{"context": "It is red.", "question": "What?",`+
		` "answers": {"text": ["red"], "answer_start": [6]}}`)))(t)
	defer questions.Close()
	equal(t, must(questions.Text(0))(t), "It is red.")
	lines := must(ReadPlainText(write("p.txt", "one\ntwo\n"), SampleByLine))(t)
	defer lines.Close()
	equal(t, lines.Len(), 2)
	by := must(TrainTokenizer(lines, nil))(t)
	defer by.Close()
	plain, tokens := write("p.txt", "one\ntwo\n"), filepath.Join(t.TempDir(), "p.tokens")
	if n := must(WriteTokenFile(plain, SampleByLine, by, tokens))(t); n < 3 {
		t.Error(n)
	}
	mapped := must(NewLoaderFromTokenFiles([]string{tokens}, []*Tokenizer{by}, nil))(t)
	defer mapped.Close()
	equal(t, must(mapped.EncodingStats(0))(t).Examples, 2)
	_, err := NewLoaderFromTokenFiles(nil, []*Tokenizer{by}, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = WriteTokenFile("/none.txt", SampleByLine, by, tokens)
	wants(t, err, ErrNotFound)
	table := write("c.csv", "kind,words\nx,one\ny,two\n")
	options := CorpusOptions{TextColumn: "words", LabelColumn: "kind"}
	classes := must(ReadClassification(table, &options))(t)
	defer classes.Close()
	equal(t, must(classes.Label(1))(t), 1)
	again := must(FromTexts([]string{"z"}, []string{"y"}, classes))(t)
	defer again.Close()
	equal(t, must(again.Label(0))(t), 1)
	unlabelled := must(ReadClassification(write("u.tsv", "x\ny\n"), &CorpusOptions{Unlabelled: true}))(t)
	defer unlabelled.Close()
	equal(t, must(unlabelled.Label(0))(t), -1)
	_, err = classes.Text(2)
	wants(t, err, ErrInvalidArgument)
	all := must(Synthetic(40, 1, 0))(t)
	defer all.Close()
	train, eval, err := all.Split(0.25, 2)
	ok(t, err)
	defer train.Close()
	defer eval.Close()
	equal(t, train.Len()+eval.Len(), 40)
}

func TestFilesOfCorpora(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		ok(t, os.MkdirAll(filepath.Dir(path), 0o700))
		ok(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("1.json", `[{"data": {"text": "a"}, "to": [{"text": "b"}], "label": 1.0}]`)
	write("2.json", `{"data": {"text": "c"}, "to": [{"text": "d"}], "label": "0"}`)
	options := CorpusOptions{TextColumn: "data.text", PairColumn: "to.0.text", LabelNames: []string{"0", "1"}}
	nested := must(ReadClassification(filepath.Join(dir, "*.json"), &options))(t)
	defer nested.Close()
	equal(t, fmt.Sprint(nested.Len(), nested.Labels(), must(nested.Label(0))(t)), "2 [0 1] 1")
	pair, has, err := nested.Pair(1)
	equal(t, fmt.Sprintf("%s %t %v", pair, has, err), "d true <nil>")
	write("texts/pos/1.txt", "good")
	write("texts/neg/1.txt", "bad")
	folder := must(ReadClassification(filepath.Join(dir, "texts"), nil))(t)
	defer folder.Close()
	equal(t, fmt.Sprintf("%v %s", folder.Labels(), must(folder.Text(1))(t)), "[neg pos] good")
	_, has, err = folder.Pair(0)
	equal(t, fmt.Sprint(has, err), "false <nil>")
	tags := must(FromLabelNames(TokenClassification, []string{"O", "X"}))(t)
	defer tags.Close()
	write("t.conll", "# text = a\na X\n")
	tagged := must(ReadTokenClassification(filepath.Join(dir, "t.conll"), tags))(t)
	defer tagged.Close()
	equal(t, fmt.Sprint(tagged.Labels(), tagged.LabelCount(1)), "[O X] 1")
	pairs := must(FromPairs([]string{"a"}, []string{"b"}, []string{"1"}, nested))(t)
	defer pairs.Close()
	equal(t, must(pairs.Label(0))(t), 1)
	_, err = FromPairs([]string{"a"}, nil, nil, nil)
	wants(t, err, ErrInvalidArgument)
	_, err = ReadClassification(filepath.Join(dir, "x.parquet"), nil)
	wants(t, err, ErrNotFound)
}

func TestPartsOfCorpora(t *testing.T) {
	all := must(Synthetic(40, 1, 0))(t)
	defer all.Close()
	few, rest, err := all.Sample(8, 1)
	ok(t, err)
	defer few.Close()
	defer rest.Close()
	equal(t, fmt.Sprint(few.Len(), rest.Len()), "8 32")
	bare := must(rest.WithoutLabels())(t)
	defer bare.Close()
	mixed := must(Concatenate(few, bare))(t)
	defer mixed.Close()
	equal(t, fmt.Sprint(mixed.Len(), len(mixed.Labels()), must(mixed.Label(8))(t)), "40 2 -1")
	two := must(mixed.Subset([]int{9, 0}))(t)
	defer two.Close()
	equal(t, must(two.Text(1))(t), must(mixed.Text(0))(t))
	path := filepath.Join(t.TempDir(), "w.txt")
	ok(t, os.WriteFile(path, []byte("a\nb c\n\nd\n"), 0o600))
	words := must(ReadWords(path))(t)
	defer words.Close()
	equal(t, words.Len(), 2)
	_, err = Concatenate(few, words)
	wants(t, err, ErrInvalidArgument)
	_, err = Concatenate()
	wants(t, err, ErrInvalidArgument)
	_, _, err = all.Sample(-1, 0)
	wants(t, err, ErrInvalidArgument)
	_, err = all.Subset([]int{40})
	wants(t, err, ErrInvalidArgument)
	options := DefaultTokenizerOptions()
	tokenizer := must(TrainTokenizer(all, &options))(t)
	defer tokenizer.Close()
	walk := DefaultLoaderOptions()
	walk.BatchSize, walk.UnlabelledRatio = 5, 4
	loader := must(NewLoader(mixed, []*Tokenizer{tokenizer}, &walk))(t)
	defer loader.Close()
	for batch, err := range loader.Batches() {
		ok(t, err)
		labelled := 0
		for _, example := range must(batch.Examples(0))(t) {
			if example < 8 {
				labelled++
			}
		}
		equal(t, labelled, 1)
	}
	_, err = NewLoader(all, []*Tokenizer{tokenizer}, &walk)
	wants(t, err, ErrInvalidArgument)
}

func smallTokenizer(t testing.TB) *Tokenizer {
	corpus := must(FromTexts([]string{"low lower lowest", "low low lower"}, nil, nil))(t)
	defer corpus.Close()
	options := DefaultTokenizerOptions()
	options.VocabSize, options.ModelMaxLength = 60, 16
	return must(TrainTokenizer(corpus, &options))(t)
}

func TestExamplesAreDrawn(t *testing.T) {
	all := must(Synthetic(40, 1, 0))(t)
	defer all.Close()
	tokenizer := must(TrainTokenizer(all, nil))(t)
	defer tokenizer.Close()
	options := DefaultLoaderOptions()
	options.Sampling, options.Samples, options.MaxTokens = Weighted, 30, 256
	options.ExampleWeights = make([]float64, 40)
	options.ExampleWeights[7] = 1
	loader := must(NewLoader(all, []*Tokenizer{tokenizer}, &options))(t)
	defer loader.Close()
	drawn := 0
	for batch, err := range loader.Batches() {
		ok(t, err)
		for _, example := range must(batch.Examples(0))(t) {
			equal(t, example, 7)
			drawn++
		}
	}
	equal(t, drawn, 30)
	options.Sampling, options.ExampleWeights = ClassBalanced, nil
	balanced := must(NewLoader(all, []*Tokenizer{tokenizer}, &options))(t)
	defer balanced.Close()
	options.MaxTokens = 2
	_, err := NewLoader(all, []*Tokenizer{tokenizer}, &options)
	wants(t, err, ErrInvalidArgument)
}

func TestTokenizers(t *testing.T) {
	tokenizer := smallTokenizer(t)
	defer tokenizer.Close()
	one := must(tokenizer.Encode("low lower", 0))(t)
	equal(t, len(one.IDs), 4)
	equal(t, one.Offsets[2], [2]int{4, 9})
	equal(t, must(tokenizer.Decode(one.IDs, true))(t), "low lower")
	cls, found := tokenizer.SpecialTokenID(ClsToken)
	equal(t, found && cls == one.IDs[0], true)
	_, found = tokenizer.SpecialTokenID(BosToken)
	equal(t, found, false)
	pair := must(tokenizer.EncodePair("low", "lower", 0))(t)
	equal(t, pair.TypeIDs[len(pair.TypeIDs)-1], 1)
	equal(t, must(tokenizer.Encode("low low low", 4))(t).Truncated, 1)
	equal(t, tokenizer.ModelMaxLength(), 16)
	dir := t.TempDir()
	ok(t, tokenizer.Save(dir))
	again := must(LoadTokenizer(dir))(t)
	defer again.Close()
	equal(t, again.VocabSize(), tokenizer.VocabSize())
	_, err := tokenizer.Encode("a\x00b", 0)
	wants(t, err, ErrInvalidArgument)
}

func TestFileSystems(t *testing.T) {
	dir, temporary := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary) // of this test alone: whatever is left there, is of the binding
	tokenizer := smallTokenizer(t)
	defer tokenizer.Close()
	ok(t, tokenizer.Save(dir))
	again := must(LoadTokenizerFS(os.DirFS(filepath.Dir(dir)), filepath.Base(dir)))(t)
	defer again.Close()
	equal(t, again.VocabSize(), tokenizer.VocabSize())
	question := `{"context": "a b", "question": "c", "answers": {"text": ["b"], "answer_start": [2]}}`
	files := fstest.MapFS{
		"in/c.csv":    {Data: []byte("text,label\nx,1\ny,0\n")},
		"in/t.txt":    {Data: []byte("a X\n")},
		"in/q.jsonl":  {Data: []byte(question)},
		"in/p.txt":    {Data: []byte("one\ntwo\n")},
		"bad.tsv":     {Data: []byte("no label\n")},
		"m/w/x.json":  {Data: []byte("{}")},
		"m/yak.onnx":  {Data: []byte("no graph")},
		"m/empty.txt": {},
	}
	for name, read := range map[string]func() (*Corpus, error){
		"c": func() (*Corpus, error) { return ReadClassificationFS(files, "in/c.csv", nil) },
		"t": func() (*Corpus, error) { return ReadTokenClassificationFS(files, "in/t.txt", nil) },
		"q": func() (*Corpus, error) { return ReadQuestionAnsweringFS(files, "in/q.jsonl") },
		"w": func() (*Corpus, error) { return ReadWordsFS(files, "in/t.txt") },
		"p": func() (*Corpus, error) { return ReadPlainTextFS(files, "in/p.txt", SampleByLine) },
	} {
		corpus, err := read()
		if err != nil || corpus.Len() == 0 {
			t.Fatal(name, err)
		}
		corpus.Close()
	}
	_, err := ReadClassificationFS(files, "bad.tsv", nil)
	wants(t, err, ErrInvalidData)
	var e *Error
	if _ = asError(err, &e); e.Message[:7] != "bad.tsv" {
		t.Fatal(err)
	}
	_, err = ReadQuestionAnsweringFS(files, "none.json")
	if err == nil || !isNotExist(err) {
		t.Fatal(err)
	}
	_, err = LoadTokenizerFS(files, "m")
	wants(t, err, ErrNotFound)
	_, err = ModelFromDirectoryFS("m", files, "none")
	equal(t, isNotExist(err), true)
	left, err := os.ReadDir(temporary)
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
}

func TestTextFromSeveralGoroutines(t *testing.T) {
	tokenizer := smallTokenizer(t)
	defer tokenizer.Close()
	want := fmt.Sprint(must(tokenizer.Encode("low lowest", 0))(t))
	var group sync.WaitGroup
	for range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 50 {
				got, err := tokenizer.Encode("low lowest", 0)
				if err != nil || fmt.Sprint(got) != want {
					t.Errorf("%v %v", got, err)
				}
			}
		}()
	}
	group.Wait()
}

func TestCloseTwiceAndCleanUp(t *testing.T) {
	for range 20 {
		corpus := must(Synthetic(10, 1, 0))(t)
		if corpus.Len()%2 == 0 {
			runtime.GC()
		}
		corpus.Close()
		corpus.Close()
		equal(t, corpus.Len(), 0)
		_, _, err := corpus.Split(0.5, 0)
		wants(t, err, ErrInvalidArgument)
		// This one is left to the clean-up.
		_ = must(Synthetic(10, 2, 0))(t)
	}
	runtime.GC()
}

func TestTensorsAndDLPack(t *testing.T) {
	for _, data := range []any{
		[]float32{1, 2}, []float64{1, 2}, []int64{1, 2}, []int32{1, 2}, []int16{1, 2}, []int8{1, 2},
		[]uint64{1, 2}, []uint32{1, 2}, []uint16{1, 2}, []uint8{1, 2}, []bool{true, false},
		F16{1, 2}, BF16{1, 2},
	} {
		managed := must(Tensor{Shape: []int64{1, 2}, Data: data}.ToDLPack())(t)
		back := must(FromDLPack("back", managed))(t)
		want := fmt.Sprintf("%T back [1 2] %v", data, data)
		equal(t, fmt.Sprintf("%T %s %v %v", back.Data, back.Name, back.Shape, back.Data), want)
		FreeDLPack(managed)
	}
	managed := must(Tensor{Shape: []int64{2}, Data: []float32{3, 4}}.ToDLPack())(t)
	defer FreeDLPack(managed)
	parameter := must(HostParameterFromDLPack("p", managed, nil))(t)
	equal(t, fmt.Sprint(parameter.Shape, parameter.Value, parameter.Gradient), "[2] [3 4] <nil>")
	_, err := Tensor{Data: []string{"x"}}.ToDLPack()
	wants(t, err, ErrInvalidArgument)
	_, err = Tensor{Shape: []int64{3}, Data: []float32{1}}.ToDLPack()
	if err == nil {
		t.Fatal("a shape that does not fit")
	}
	_, err = FromDLPack("x", nil)
	wants(t, err, ErrInvalidArgument)
	rows := Tensor{Shape: []int64{2, 2}, Data: []float32{1, 2, 3, 4}}.Rows()
	equal(t, fmt.Sprint(rows), "[[1 2] [3 4]]")
	equal(t, math.IsNaN(float64(rows[0][0])), false)
}

// Arguments that nothing else holds stay for the length of the call; with the tag mmopt_gc garbage
// is collected in the middle of it.
func TestArgumentsOutliveTheirCall(t *testing.T) {
	corpus := func() *Corpus { return must(Synthetic(600, 1, 0))(t) }
	for range 2 {
		train, eval, err := corpus().Split(0.5, 1)
		ok(t, err)
		equal(t, train.Len()+eval.Len(), 600)
		options := DefaultTokenizerOptions()
		options.VocabSize = 300
		words := func() *Tokenizer { return must(TrainTokenizer(corpus(), &options))(t) }
		equal(t, words().VocabSize() > 100, true)
		equal(t, must(ModelForCorpus("m", nil, words(), corpus()))(t) != nil, true)
		loader := must(NewLoader(corpus(), []*Tokenizer{words(), words()}, nil))(t)
		equal(t, must(loader.Next())(t).Models(), 2)
		labels := must(FromTexts([]string{"a"}, []string{"1"}, corpus()))(t).Labels()
		equal(t, len(labels), 2)
	}
}

//go:build cgo

package mmopt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdaptersAreTrainedAndSavedAlone(t *testing.T) {
	j := setUp(t)
	folder := filepath.Join(t.TempDir(), "adapters")
	sizes := DefaultModelConfig()
	sizes.HiddenSize, sizes.Heads, sizes.Layers = 16, 2, 1
	bert := must(ModelForCorpus("bert", &sizes, j.tokenizers[0], j.corpus))(t)
	defer bert.Close()
	wants(t, bert.AddAdapters(AdapterOptions{}), ErrInvalidArgument)
	wants(t, bert.AddAdapters(AdapterOptions{TargetModules: []string{"query"}, Rank: -1}), ErrInvalidArgument)
	ok(t, bert.AddAdapters(AdapterOptions{
		TargetModules: []string{"query", "value"}, Rank: 2, Alpha: 4, Dropout: 0.1, ModulesToSave: []string{},
	}))
	trained := func(trainer *Trainer) int {
		n := 0
		for p, err := range trainer.Parameters(0) {
			ok(t, err)
			if p.Trainable {
				n++
			}
		}
		return n
	}
	trainer := must(NewTrainer([]*Model{bert}, nil))(t)
	defer trainer.Close()
	equal(t, trained(trainer), 4)
	ok(t, bert.AddAdapters(AdapterOptions{TargetModules: []string{"query"}, ModulesToSave: []string{"classifier"}}))
	other := must(NewTrainer([]*Model{bert}, nil))(t)
	defer other.Close()
	equal(t, trained(other), 4)

	batch := j.batch(t)
	tensors := must(batch.Tensors(0))(t)
	must(trainer.ForwardBackwardModel(background, 0, tensors))(t)
	must(trainer.Step(background))(t)
	loss := must(trainer.EvaluateTensors(background, 0, tensors))(t).Loss
	ok(t, trainer.SaveAdapters(0, folder))
	wants(t, trainer.SaveAdapters(1, folder), ErrInvalidArgument)
	saved := string(must(os.ReadFile(filepath.Join(folder, "adapter_config.json")))(t))
	for _, part := range []string{`"r": 2`, `"lora_alpha": 4`, `"lora_dropout": 0.1`, `"query"`, `"value"`} {
		if !strings.Contains(saved, part) {
			t.Errorf("no %s in %s", part, saved)
		}
	}
	ok(t, bert.LoadAdapters(folder))
	again := must(NewTrainer([]*Model{bert}, nil))(t)
	defer again.Close()
	equal(t, must(again.EvaluateTensors(background, 0, tensors))(t).Loss, loss)
}

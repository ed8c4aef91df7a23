package mmopt

// #include <mmopt.h>
import "C"

import (
	"encoding/json"
	"runtime"
)

// CheckpointOptions say which checkpoints of a run stay; those of other runs are never removed.
// Start from DefaultCheckpointOptions.
type CheckpointOptions struct {
	defaulted bool
	// KeepLast: so many of the newest stay, at least 1; default 2.
	KeepLast int
	// KeepBest: so many of those with the best scores stay beside them; default 0.
	KeepBest int
	// Score of this checkpoint, of any metric; NaN (default): it has none.
	Score float64
	// LowerIsBetter is for losses.
	LowerIsBetter bool
	// Asynchronous: the state is copied, which takes as much memory again, and written beside the
	// training. The next checkpoint waits for it and has its error; so has WaitForCheckpoint.
	Asynchronous bool
}

// DefaultCheckpointOptions are the library's defaults.
func DefaultCheckpointOptions() CheckpointOptions {
	var raw C.mmopt_checkpoint_options
	C.mmopt_checkpoint_options_init(&raw)
	return CheckpointOptions{
		defaulted:     true,
		KeepLast:      int(raw.keep_last),
		KeepBest:      int(raw.keep_best),
		Score:         float64(raw.score),
		LowerIsBetter: raw.greater_is_better == 0,
		Asynchronous:  raw.asynchronous != 0,
	}
}

func (o *CheckpointOptions) c(a *arena) *C.mmopt_checkpoint_options {
	raw := array[C.mmopt_checkpoint_options](a, 1)
	C.mmopt_checkpoint_options_init(raw)
	if o == nil {
		return raw
	}
	a.defaulted(o.defaulted, "CheckpointOptions")
	raw.keep_last = a.size("KeepLast", o.KeepLast)
	raw.keep_best = a.size("KeepBest", o.KeepBest)
	raw.score = C.double(o.Score)
	raw.greater_is_better = flag(!o.LowerIsBetter)
	raw.asynchronous = flag(o.Asynchronous)
	return raw
}

// SaveCheckpointWith is SaveCheckpoint with a choice of which checkpoints of this run stay; nil
// options are the defaults. It gives back the checkpoint's own directory; of an asynchronous one
// WaitForCheckpoint does.
func (t *Trainer) SaveCheckpointWith(
	directory, hostText string, options *CheckpointOptions,
) (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	d, h, o := a.text(directory), a.text(hostText), options.c(&a)
	var path *C.char
	out := &path
	if o.asynchronous != 0 {
		out = nil
	}
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_save_checkpoint_with(t.c(), d, h, o, out)
	})
	if err != nil || path == nil {
		return "", err
	}
	return takeText(path), nil
}

// WaitForCheckpoint waits for the asynchronous checkpoint that is being written, and gives back its
// directory; "" where there was none. Its error is that of writing it, and is told once.
func (t *Trainer) WaitForCheckpoint() (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(t)
	var path *C.char
	err := a.call(func() *C.mmopt_error {
		return C.mmopt_trainer_wait_for_checkpoint(t.c(), &path)
	})
	if err != nil || path == nil {
		return "", err
	}
	return takeText(path), nil
}

// Checkpoint is what a directory of checkpoints says of one of them.
type Checkpoint struct {
	Path string `json:"path"`
	// Step is nil where it cannot be read.
	Step *uint64 `json:"step"`
	// Run is empty where it is not known.
	Run   string   `json:"run"`
	Score *float64 `json:"score"`
	// Bytes of all files.
	Bytes uint64 `json:"bytes"`
	// Damage says why it cannot be used; empty for a whole one.
	Damage string `json:"damage"`
}

// ListCheckpoints reads and checks every file of every checkpoint in a directory, the newest first.
func ListCheckpoints(directory string) ([]Checkpoint, error) {
	var a arena
	defer a.free()
	d := a.text(directory)
	var text *C.char
	err := a.call(func() *C.mmopt_error { return C.mmopt_checkpoint_list(d, nil, &text) })
	if err != nil {
		return nil, err
	}
	var all []Checkpoint
	err = json.Unmarshal([]byte(takeText(text)), &all)
	return all, err
}

// PruneCheckpoints removes damaged checkpoints from a directory, and of the whole ones all but the
// newest, whichever runs wrote them. It gives back the paths of those that are gone.
func PruneCheckpoints(directory string, keepLast int) ([]string, error) {
	var a arena
	defer a.free()
	d, n := a.text(directory), a.size("keepLast", keepLast)
	var text *C.char
	err := a.call(func() *C.mmopt_error { return C.mmopt_checkpoint_prune(d, n, &text) })
	if err != nil {
		return nil, err
	}
	var gone []string
	err = json.Unmarshal([]byte(takeText(text)), &gone)
	return gone, err
}

//go:build cgo

package mmopt

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// room is where ranks that are goroutines meet: each leaves something and takes what all left.
type room struct {
	size   int
	mutex  sync.Mutex
	met    *sync.Cond
	left   []any
	n      int
	round  int
	taken  []any
	letter [4][4]chan []byte
}

func newRoom(size int) *room {
	r := &room{size: size, left: make([]any, size)}
	r.met = sync.NewCond(&r.mutex)
	for i := range r.letter {
		for j := range r.letter[i] {
			r.letter[i][j] = make(chan []byte, 1)
		}
	}
	return r
}

// exchange leaves what must not change afterwards, and gives what all have left.
func (r *room) exchange(rank int, mine any) []any {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	round := r.round
	r.left[rank] = mine
	if r.n++; r.n == r.size {
		r.taken, r.left, r.n = r.left, make([]any, r.size), 0
		r.round++
		r.met.Broadcast()
	}
	for r.round == round {
		r.met.Wait()
	}
	return r.taken
}

// member is one rank of a room.
type member struct {
	*room
	rank    int
	fails   error
	panics  bool
	aborted string
}

func (m *member) Rank() int { return m.rank }
func (m *member) Size() int { return m.size }

func addAll[T float32 | float64 | uint64 | int64](into []T, all []any, of func(Numbers) []T, at int) {
	for i := range into {
		into[i] = 0
		for _, numbers := range all {
			into[i] += of(numbers.(Numbers))[at+i]
		}
	}
}

func copyOf(n Numbers) Numbers {
	return Numbers{
		append([]float32(nil), n.F32...), append([]float64(nil), n.F64...),
		append([]uint64(nil), n.U64...), append([]int64(nil), n.I64...),
	}
}

func (m *member) sum(from, into Numbers, at int) {
	all := m.exchange(m.rank, copyOf(from))
	addAll(into.F32, all, func(n Numbers) []float32 { return n.F32 }, at)
	addAll(into.F64, all, func(n Numbers) []float64 { return n.F64 }, at)
	addAll(into.U64, all, func(n Numbers) []uint64 { return n.U64 }, at)
	addAll(into.I64, all, func(n Numbers) []int64 { return n.I64 }, at)
}

func (m *member) AllReduce(n Numbers) error {
	if m.panics {
		panic("the cable is out")
	}
	if m.fails != nil {
		return m.fails
	}
	m.sum(n, n, 0)
	return nil
}

func (m *member) Broadcast(data []byte, root int) error {
	copy(data, m.exchange(m.rank, append([]byte(nil), data...))[root].([]byte))
	return nil
}

func (m *member) AllGather(data, all []byte) error {
	for i, part := range m.exchange(m.rank, append([]byte(nil), data...)) {
		copy(all[i*len(data):], part.([]byte))
	}
	return nil
}

func (m *member) ReduceScatter(n, part Numbers) error {
	m.sum(n, part, m.rank*(len(part.F32)+len(part.F64)+len(part.U64)+len(part.I64)))
	return nil
}

func (m *member) Send(data []byte, to int) error {
	m.letter[m.rank][to] <- append([]byte(nil), data...)
	return nil
}

func (m *member) Receive(data []byte, from int) error {
	select {
	case letter := <-m.letter[from][m.rank]:
		copy(data, letter)
		return nil
	case <-time.After(time.Minute):
		return errors.New("no letter")
	}
}

func (m *member) Barrier() error {
	m.exchange(m.rank, nil)
	return nil
}

func (m *member) Abort(message string) { m.aborted = message }

// onRanks runs f for each of n ranks, side by side; the first error.
func onRanks(n int, f func(*Communicator) error) error {
	r, all := newRoom(n), make([]error, n)
	var wait sync.WaitGroup
	for rank := range n {
		wait.Add(1)
		go func() {
			defer wait.Done()
			c, err := NewCommunicator(&member{room: r, rank: rank})
			if err == nil {
				defer c.Close()
				err = f(c)
			}
			all[rank] = err
		}()
	}
	wait.Wait()
	return errors.Join(all...)
}

func TestCommunicatorCarries(t *testing.T) {
	for n := 1; n <= 4; n++ {
		ok(t, onRanks(n, func(c *Communicator) error {
			if c.Size() != n || c.Rank() >= n {
				t.Errorf("rank %d of %d", c.Rank(), c.Size())
			}
			if err := c.Check(); err != nil {
				return err
			}
			traffic, err := c.Traffic()
			if traffic.AllReduce != 140 || traffic.AllGather != 5 || traffic.ReduceScatter != uint64(20*n) {
				t.Errorf("%+v", traffic)
			}
			return errors.Join(err, c.Barrier())
		}))
	}
}

func TestCommunicatorFailsAsItsTransport(t *testing.T) {
	for _, m := range []*member{
		{room: newRoom(1), fails: errors.New("the cable is out")},
		{room: newRoom(1), panics: true},
	} {
		c := must(NewCommunicator(m))(t)
		err := c.Check()
		wants(t, err, ErrCommunication)
		if !strings.Contains(err.Error(), "the cable is out") {
			t.Error(err)
		}
		wants(t, c.Barrier(), ErrCommunication)
		ok(t, c.Abort("enough"))
		equal(t, m.aborted, "enough")
		wants(t, c.Abort("a\x00b"), ErrInvalidArgument)
		ok(t, c.Close())
	}
	_, err := NewCommunicator(nil)
	wants(t, err, ErrInvalidArgument)
	_, err = NewCommunicator(&member{room: newRoom(1), rank: 1})
	wants(t, err, ErrInvalidArgument)
}

// replica is a trainer of one small model without dropout, and a loader of its rank's rows.
func replica(
	corpus *Corpus, words *Tokenizer, rank, n int,
) (trainer *Trainer, loader *Loader, err error) {
	sizes := DefaultModelConfig()
	sizes.Layers, sizes.HiddenSize, sizes.Heads = 1, 16, 2
	model, err := ModelForCorpus("one", &sizes, words, corpus)
	if err != nil {
		return nil, nil, err
	}
	defer model.Close()
	options := DefaultTrainerOptions(PresetIndependent)
	options.NThreads = 1
	walk := DefaultLoaderOptions()
	walk.BatchSize, walk.Rank, walk.Ranks = 8, rank, n
	if err = model.SetDropout(0); err == nil {
		trainer, err = NewTrainer([]*Model{model}, &options)
	}
	if err == nil {
		loader, err = NewLoader(corpus, []*Tokenizer{words}, &walk)
	}
	return trainer, loader, err
}

// trainRanks takes steps on n ranks; the losses that each got.
func trainRanks(t *testing.T, corpus *Corpus, words *Tokenizer, n, steps int) [][]float64 {
	losses := make([][]float64, n)
	ok(t, onRanks(n, func(c *Communicator) error {
		trainer, loader, err := replica(corpus, words, c.Rank(), n)
		if err != nil {
			return err
		}
		defer trainer.Close()
		defer loader.Close()
		options := DefaultRankOptions()
		options.CheckEvery = 1
		if err := trainer.SetCommunicator(c, &options); err != nil {
			return err
		}
		for range steps {
			batch, err := loader.Next()
			if err != nil {
				return err
			}
			results, err := trainer.ForwardBackward(background, batch)
			if err == nil {
				_, err = trainer.Step(background)
			}
			if err = errors.Join(err, batch.Close()); err != nil {
				return err
			}
			losses[c.Rank()] = append(losses[c.Rank()], results[0].Loss)
		}
		return trainer.SetCommunicator(nil, nil)
	}))
	return losses
}

func TestRanksTrainAsOne(t *testing.T) {
	j := setUp(t)
	alone := trainRanks(t, j.corpus, j.tokenizers[0], 1, 5)[0]
	for _, losses := range trainRanks(t, j.corpus, j.tokenizers[0], 2, 5) {
		for step, loss := range losses {
			if diff := loss - alone[step]; diff > 1e-5 || diff < -1e-5 {
				t.Errorf("step %d: %v and %v", step, loss, alone[step])
			}
		}
	}
	c := must(NewCommunicator(&member{room: newRoom(1)}))(t)
	wants(t, j.SetCommunicator(c, &RankOptions{}), ErrInvalidArgument)
	options := DefaultRankOptions()
	options.BucketBytes = -1
	wants(t, j.SetCommunicator(c, &options), ErrInvalidArgument)
	options = DefaultRankOptions()
	options.Replicas = must(NewCommunicator(&member{room: newRoom(1)}))(t)
	wants(t, j.SetCommunicator(c, &options), ErrInvalidArgument)
	ok(t, options.Replicas.Close())
	wants(t, j.SetCommunicator(c, &options), ErrInvalidArgument)
	ok(t, c.Close())
	wants(t, j.SetCommunicator(c, nil), ErrInvalidArgument)
}

// Ranks with shards of the state train alike, and cannot be left by themselves.
func TestStateOfRanksIsShared(t *testing.T) {
	j := setUp(t)
	if o := DefaultRankOptions(); o.ShardState || o.BF16Gradients || o.Overlap {
		t.Error("other defaults")
	}
	losses := make([]float64, 2)
	ok(t, onRanks(2, func(c *Communicator) error {
		trainer, loader, err := replica(j.corpus, j.tokenizers[0], c.Rank(), 2)
		if err != nil {
			return err
		}
		defer trainer.Close()
		defer loader.Close()
		options := DefaultRankOptions()
		options.ShardState, options.BF16Gradients, options.CheckEvery = true, true, 1
		options.Overlap = true
		if err := trainer.SetCommunicator(c, &options); err != nil {
			return err
		}
		for range 3 {
			batch, err := loader.Next()
			if err != nil {
				return err
			}
			results, err := trainer.ForwardBackward(background, batch)
			if err == nil {
				_, err = trainer.Step(background)
			}
			if err = errors.Join(err, batch.Close()); err != nil {
				return err
			}
			losses[c.Rank()] = results[0].Loss
		}
		if err := trainer.SetCommunicator(nil, nil); !errors.Is(err, ErrState) {
			return fmt.Errorf("left with a part of the state: %v", err)
		}
		return trainer.GatherModels()
	}))
	if losses[0] != losses[1] {
		t.Error(losses)
	}
}

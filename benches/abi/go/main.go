// A step through Go: prints the median of its microseconds, and a checksum of the weights. It does
// what bench.h says.
package main

import (
	"fmt"
	"log"
	"slices"
	"time"

	"mmopt"
)

const (
	models, width, elements = 2, 16, 16*16 + 16
	warmUp, chunks, chunk   = 2000, 41, 500
)

var values, gradients [models][]float32

func newOptimizer() (*mmopt.Optimizer, error) {
	var all []mmopt.HostModel
	for i, name := range []string{"one", "two"} {
		values[i], gradients[i] = make([]float32, elements), make([]float32, elements)
		for j := range gradients[i] {
			gradients[i][j] = float32((i+j)%7-3) / 64
		}
		matrix := width * width
		all = append(all, mmopt.HostModel{Name: name, Parameters: []mmopt.HostParameter{{
			Name:  "encoder.layer.0.attention.self.query.weight",
			Shape: []int64{width, width}, Value: values[i][:matrix], Gradient: gradients[i][:matrix],
		}, {
			Name:  "encoder.layer.0.attention.self.query.bias",
			Shape: []int64{width}, Value: values[i][matrix:], Gradient: gradients[i][matrix:],
		}}})
	}
	options := mmopt.DefaultTrainerOptions(mmopt.PresetDefault)
	options.LearningRate, options.NThreads = 1e-4, 1
	return mmopt.NewOptimizer(all, &options)
}

func run(optimizer *mmopt.Optimizer, steps int) float64 {
	start := time.Now()
	for range steps {
		for i := range models {
			if err := optimizer.Accumulate(i, 1); err != nil {
				log.Fatal(err)
			}
		}
		if _, err := optimizer.Step(); err != nil {
			log.Fatal(err)
		}
	}
	return float64(time.Since(start).Nanoseconds()) / 1e3 / float64(steps)
}

func main() {
	optimizer, err := newOptimizer()
	if err != nil {
		log.Fatal(err)
	}
	defer optimizer.Close()
	run(optimizer, warmUp)
	var times []float64
	for range chunks {
		times = append(times, run(optimizer, chunk))
	}
	slices.Sort(times)
	sum := 0.0
	for i := range models {
		for j, value := range values[i] {
			sum += float64(value) * float64(j+1)
		}
	}
	fmt.Printf("%.4f %.9e\n", times[chunks/2], sum)
}

//go:build cgo && !mmopt_gc

package mmopt

func collectGarbage() {}

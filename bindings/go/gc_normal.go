//go:build !mmopt_gc

package mmopt

func collectGarbage() {}

//go:build !mmopt_manual && !mmopt_static

package mmopt

// #cgo pkg-config: mmopt
import "C"

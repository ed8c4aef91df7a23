//go:build mmopt_static

package mmopt

// #cgo pkg-config: --static mmopt
import "C"

//go:build mmopt_static

package mmopt

// The archive is named so that the shared library, where both are, is not needed at run time.

// #cgo pkg-config: mmopt
// #cgo LDFLAGS: -Wl,--as-needed -l:libmmopt.a -lpthread -ldl -lm
import "C"

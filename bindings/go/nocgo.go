//go:build !cgo

package mmopt

// Without cgo nothing else of this package is compiled; the compiler says this name.
var _ = mmopt_needs_cgo_and_a_C_compiler__set_CGO_ENABLED_to_1_and_install_one

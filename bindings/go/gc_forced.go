//go:build cgo && mmopt_gc

package mmopt

import "runtime"

// collectGarbage runs at each use of an object, before its address is handed out: what is reachable
// no more by then is cleaned up before the C library looks at it, and the fault shows.
func collectGarbage() {
	runtime.GC()
	runtime.Gosched()
}

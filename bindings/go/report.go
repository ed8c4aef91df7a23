package mmopt

// #include <mmopt.h>
import "C"

// Report writes a page on training runs from their logs: one HTML file at path that needs no
// network. Runs that differ in nothing but their seed become one curve with a band.
func Report(logs []string, path string) error {
	var a arena
	defer a.free()
	l, n, p := a.texts(logs), a.size("logs", len(logs)), a.text(path)
	return a.call(func() *C.mmopt_error { return C.mmopt_report(l, n, p) })
}

//go:build cgo

package mmopt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	log, page := filepath.Join(t.TempDir(), "run.jsonl"), filepath.Join(t.TempDir(), "page.html")
	step := `{"type":"step","step":1,"models":[{"name":"a","loss":0.5}]}` + "\n"
	ok(t, os.WriteFile(log, []byte(step), 0o600))
	ok(t, Report([]string{log}, page))
	html := string(must(os.ReadFile(page))(t))
	if !strings.Contains(html, "<title>Training report: run</title>") {
		t.Fatal(html)
	}
	wants(t, Report(nil, page), ErrInvalidArgument)
	wants(t, Report([]string{log, log}, page), ErrInvalidArgument)
	wants(t, Report([]string{log}, log), ErrInvalidArgument)
	wants(t, Report([]string{log + "x"}, page), ErrNotFound)
	wants(t, Report([]string{page}, page+"2"), ErrInvalidData)
	wants(t, Report([]string{"a\x00b"}, page), ErrInvalidArgument)
}

#!/bin/sh
# The Go package's tests under the race detector, and then with all checks of pointers that are passed
# to C: go_race.sh LIBRARY_FOLDER. In the first a collection is forced at every opportunity, so that
# memory that C keeps, or that is freed twice, shows.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
libraries=$(cd "$1" && pwd)
command -v go >/dev/null || { echo "not run: no go" >&2; exit 0; }
cd bindings/go
export CGO_CFLAGS="-I$root/include" CGO_LDFLAGS="-L$libraries -lmmopt -Wl,-rpath,$libraries"
export GOFLAGS="-buildvcs=false -mod=mod" GOWORK=off
export MMOPT_ORT_LIB="${MMOPT_ORT_LIB:-$root/.runtime/lib/libonnxruntime.so}"
GOGC=1 go test -race -count=1 -tags mmopt_manual ./...
GOEXPERIMENT=cgocheck2 go test -count=1 -tags mmopt_manual ./...

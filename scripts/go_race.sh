#!/bin/sh
# The Go package's tests under the race detector: go_race.sh LIBRARY_FOLDER. A collection is forced
# at every opportunity, so that memory that C keeps, or that is freed twice, shows.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
libraries=$(cd "$1" && pwd)
command -v go >/dev/null || { echo "not run: no go" >&2; exit 0; }
cd bindings/go
CGO_CFLAGS="-I$root/include" CGO_LDFLAGS="-L$libraries -lmmopt -Wl,-rpath,$libraries" \
    MMOPT_ORT_LIB=${MMOPT_ORT_LIB:-$root/.runtime/lib/libonnxruntime.so} GOGC=1 \
    GOFLAGS="-buildvcs=false -mod=mod" GOWORK=off \
    go test -race -count=1 -tags mmopt_manual ./...

#!/bin/sh
# Says what is missing before the first build, and adds the Rust components that lints need.
set -eu

missing=
for tool in cargo cc make python3 sha256sum; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -z "$missing" ] || {
    echo "setup: please install:$missing (on Debian: build-essential, python3-pip; Rust from rustup)" >&2
    exit 1
}
python3 -m pip --version >/dev/null 2>&1 || echo "setup: python3 has no pip; downloads will fail" >&2
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

# What tests of the C++ and Go wrappers need; without it they print "not run".
gtest() { echo '#include <gtest/gtest.h>' | c++ -E -xc++ - >/dev/null 2>&1; }
if ! gtest && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    add="apt-get install -y -q --no-install-recommends libgtest-dev"
    $add >/dev/null 2>&1 || { apt-get update -q && $add; } >/dev/null 2>&1 || true
fi
gtest || echo "setup: no GoogleTest; please install libgtest-dev (Debian) for the C++ tests" >&2
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
if command -v go >/dev/null 2>&1 && [ ! -x "$(go env GOPATH)/bin/staticcheck" ]; then
    go install "$staticcheck" || echo "setup: $staticcheck could not be installed" >&2
fi

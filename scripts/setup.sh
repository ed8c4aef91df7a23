#!/bin/sh
# Says what is missing before the first build, and adds what lints need: components and targets of Rust.
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

# For `make check-targets`, which says "not run" without them.
for target in x86_64-pc-windows-gnu aarch64-apple-darwin aarch64-unknown-linux-gnu; do
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] ||
        rustup target add "$target" >/dev/null 2>&1 ||
        echo "setup: Rust's target $target could not be added; it will not be checked" >&2
done

# Tools of some tests, which say "not run" without them.
gtest() { echo '#include <gtest/gtest.h>' | c++ -E -xc++ - >/dev/null 2>&1; }
wanted=
gtest || wanted="$wanted libgtest-dev"
command -v abidiff >/dev/null 2>&1 || wanted="$wanted abigail-tools"
command -v clang++ >/dev/null 2>&1 || wanted="$wanted clang"
command -v doxygen >/dev/null 2>&1 || wanted="$wanted doxygen"
command -v valgrind >/dev/null 2>&1 || wanted="$wanted valgrind"
if [ -n "$wanted" ]; then
    install="apt-get install -qq -y --no-install-recommends $wanted"
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        $install >/dev/null 2>&1 || { apt-get update -qq && $install >/dev/null; } ||
            echo "setup: not installed:$wanted; some tests will not run" >&2
    else
        echo "setup: some tests need these Debian packages:$wanted" >&2
    fi
fi

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
if command -v go >/dev/null 2>&1 && [ ! -x "$(go env GOPATH)/bin/staticcheck" ]; then
    go install "$staticcheck" || echo "setup: $staticcheck could not be installed" >&2
fi

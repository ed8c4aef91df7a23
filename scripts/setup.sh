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

#!/bin/sh
# The optimizer's tests as a program for 64-bit Arm, under qemu's emulation where this machine is none:
# the kernels' NEON build against the references, and the checksums of its results, which must be
# those of `cargo test --release --test optimizer bits:: -- --nocapture` here.
# Needs (Debian's names) gcc-aarch64-linux-gnu and qemu-user, and fetches Rust's target.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$tool" > /dev/null; then
        echo "test_arm: not run: $tool is missing (apt install gcc-aarch64-linux-gnu qemu-user)" >&2
        exit 3
    fi
done
rustup target add "$target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
mkdir -p build
sums() {
    cargo test --release --locked "$@" --test optimizer -- bits:: --nocapture |
        grep -o 'bits of configuration.*'
}
sums > build/bits_here
sums --target "$target" > build/bits_arm
diff build/bits_here build/bits_arm
echo "$(wc -l < build/bits_arm) configurations: the same bits here and on $target"
cargo test --release --locked --target "$target" --test optimizer -- reference:: golden::

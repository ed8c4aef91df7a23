#!/bin/sh
# Whether the library compiles for the systems that this machine is not: `cargo check`, which needs
# Rust's target but neither a linker nor a C compiler for it. scripts/setup.sh adds the targets.
#
#   scripts/check_targets.sh [TARGET...]
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- x86_64-pc-windows-gnu aarch64-apple-darwin aarch64-unknown-linux-gnu

flags=
for target in "$@"; do
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        flags="$flags --target $target"
    else
        echo "not run: target $target is not installed (rustup target add $target)"
    fi
done
[ -n "$flags" ] || exit 0
# In the profile of `make lint`, so that what runs while compiling is shared with it. At once, as
# that is built just once then.
# shellcheck disable=SC2086 # the flags are separate words
RUSTFLAGS="${RUSTFLAGS:-} -Dwarnings" ${CARGO:-cargo} check --release --locked --lib $flags

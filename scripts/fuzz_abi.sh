#!/bin/sh
# Random calls of every function of the C ABI: fuzz_abi.sh LIBRARY_FOLDER SECONDS SEED
set -eu
cd "$(dirname "$0")/.."
libraries=$(cd "$1" && pwd)
work=build/abi
mkdir -p "$work"
MMOPT_GENERATED="$PWD/$work" cargo test --release --locked --test abi -- calls::random_calls
cc -std=c99 -D_POSIX_C_SOURCE=200809L -g -O1 -Iinclude -Itests/abi -Itests/c -I"$work" \
    tests/abi/fuzz.c -o "$work/fuzz" -L"$libraries" -lmmopt -Wl,-rpath,"$libraries" -lm -lpthread
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
MMOPT_ORT_LIB=${MMOPT_ORT_LIB:-$PWD/.runtime/lib/libonnxruntime.so} \
    "$work/fuzz" "$scratch" "$2" "$3"

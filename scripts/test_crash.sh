#!/bin/sh
# Kills training at each system call on its checkpoints and at random instants, lets each of them fail,
# and cuts the power in a model of the disk: see tools/src/bin/crash_test. Then refuses every large block of
# memory once: tests/out_of_memory.rs. Needs Linux, a C compiler and the library in TARGET.
#
# usage: scripts/test_crash.sh TARGET KILLS
set -eu
cd "$(dirname "$0")/.."
target=$1 kills=$2 build=build/crash
mkdir -p "$build"
: "${MMOPT_ORT_LIB:=$PWD/.runtime/lib/libonnxruntime.so}"
export MMOPT_ORT_LIB
cc -std=c99 -O1 -Wall -Wextra -D_POSIX_C_SOURCE=200809L -Iinclude -Itests/c tests/crash/train.c \
    -o "$build/train" -L"$target" -lmmopt -Wl,-rpath,"$(cd "$target" && pwd)" -lm
cc -std=c99 -O1 -Wall -Wextra -shared -fPIC tests/crash/faults.c -o "$build/faults.so" -ldl -lpthread
${CARGO:-cargo} run --release --locked -q -p mmopt-tools --bin crash_test -- \
    "$build/train" "$PWD/$build/faults.so" "$kills"
MMOPT_ALLOCATIONS=full ${CARGO:-cargo} test --release --locked -q --test out_of_memory -- --nocapture

#!/bin/sh
# The C and C++ tests under sanitizers: sanitize.sh [address] [thread] [memcheck]; all by default.
#
#   address   the library and the tests under AddressSanitizer with LeakSanitizer, the tests under
#             UndefinedBehaviorSanitizer, too; plus five minutes of random calls
#   thread    the library, with Rust's own library built anew, and the tests under ThreadSanitizer.
#             Valgrind's race detectors are no substitute: they know nothing of atomics, which
#             Rust's locks are made of, and report each hand-over between the library's threads
#   memcheck  the released library under valgrind
#
# ThreadSanitizer must report a planted race (tests/abi/race.c) before its silence counts. The script
# ends with a line for each, with 1 after any report, and with 3 where a part could not be run.
#
# ONLY names the programs to run (a pattern of the shell): ONLY='fuzz' sanitize.sh address.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/sanitize
host=$(rustc -vV | sed -n 's/^host: //p')
export MMOPT_ORT_LIB="${MMOPT_ORT_LIB:-$root/.runtime/lib/libonnxruntime.so}"
export SECONDS_OF_FUZZING="${SECONDS_OF_FUZZING:-300}"
mkdir -p "$work"
status=0

# not_run PART REASON
not_run() {
    echo "$1: not run: $2"
    [ "$status" = 1 ] || status=3
}

# The generated calls and the graphs of import_fixes.c, by the tests that use them.
export MMOPT_GENERATED="$work"
cargo test --release --locked --test abi -- calls::random_calls >/dev/null
cargo test --release --locked --test abi -- programs::import_fixes >/dev/null

# compile COMPILER OUTPUT SOURCE FLAGS...
compile() {
    compiler=$1 output=$2 source=$3
    shift 3
    case $source in *.cpp) standard=c++17 ;; *) standard=c99 ;; esac
    "$compiler" "-std=$standard" -D_POSIX_C_SOURCE=200809L -g -O1 -fno-omit-frame-pointer \
        -Iinclude -Ibindings/cpp -Itests/abi -Itests/c -I"$work" "$source" -o "$output" "$@"
}

# The C++ tests need GoogleTest.
sources() {
    ls tests/c/*.c tests/abi/*.c
    if echo '#include <gtest/gtest.h>' | c++ -E -xc++ - >/dev/null 2>&1; then
        ls tests/cpp/*.cpp
    fi
}

# wanted SOURCE_OR_PROGRAM: whether ONLY lets it be run.
wanted() {
    one=$(basename "$1")
    # shellcheck disable=SC2254
    case ${one%.*} in ${ONLY:-*}) return 0 ;; *) return 1 ;; esac
}

# libraries SOURCE: what a test needs beside libmmopt.
libraries() {
    case $1 in *.cpp) echo "-lgtest -lgtest_main" ;; esac
}

# run_one COMMAND... PROGRAM: in an empty folder, with its arguments and files.
run_one() {
    scratch=$(mktemp -d)
    for program in "$@"; do :; done
    arguments=$scratch
    case $program in
        */lives.test) arguments="$scratch ${LIVES:-300}" ;;
        */fuzz.test) arguments="$scratch $FUZZ" ;;
        */import_fixes.test) cp "$work"/graphs/*.onnx "$scratch" ;;
    esac
    result=0
    # shellcheck disable=SC2086
    "$@" $arguments >"$program.log" 2>&1 || result=$?
    rm -rf "$scratch"
    return $result
}

# run_all NAME FOLDER COMMAND...: every program of a folder; counts those with a report.
run_all() {
    name=$1 folder=$2 n=0 bad=0
    shift 2
    for program in "$folder"/*.test; do
        wanted "$program" && [ "$(basename "$program")" != race.test ] || continue
        if run_one "$@" "$program"; then
            echo "  $(basename "$program" .test): $(tail -n 1 "$program.log")"
        else
            bad=$((bad + 1))
            echo "  $(basename "$program" .test): REPORT, see $program.log"
        fi
        n=$((n + 1))
    done
    echo "$name: $n programs, $bad with reports"
    [ "$bad" = 0 ] || status=1
}

# sees_races NAME FOLDER COMMAND...: whether the planted race is reported.
sees_races() {
    name=$1 folder=$2
    shift 2
    if run_one "$@" "$folder/race.test" || ! grep -q "data race" "$folder/race.test.log"; then
        echo "$name: the planted race was not reported: see $folder/race.test.log"
        status=1
        return 1
    fi
}

# library NAME FLAGS CARGO_FLAGS: the shared library, built with a sanitizer.
library() {
    # shellcheck disable=SC2086
    RUSTFLAGS="$2" CARGO_TARGET_DIR="target/$1" \
        cargo +nightly build --locked --lib --target "$host" $3 || return 1
    mkdir -p "$work/$1"
    cp "target/$1/$host/debug/libmmopt.so" "$work/$1/libmmopt.so.0"
    ln -sf libmmopt.so.0 "$work/$1/libmmopt.so"
}

# sanitizer NAME RUNTIME FLAGS...: compiles all tests with it. The runtime is Rust's, so that it
# fits the library.
sanitizer() {
    name=$1 runtime=$2
    shift 2
    rt=$(rustc +nightly --print sysroot)/lib/rustlib/$host/lib/librustc-nightly_rt.$runtime.a
    rm -f "$work/$name"/*.test "$work/$name"/*.log
    for source in $(sources); do
        wanted "$source" || [ "$source" = tests/abi/race.c ] || continue
        program=$work/$name/$(basename "${source%.*}").test
        case $source in *.cpp) compiler=clang++ ;; *) compiler=clang ;; esac
        compile $compiler "$program.o" "$source" "$@" -c
        # shellcheck disable=SC2046
        clang++ "$program.o" -o "$program" $(libraries "$source") -L"$work/$name" -lmmopt -Wl,-rpath,"$work/$name" \
            -Wl,--whole-archive "$rt" -Wl,--no-whole-archive -Wl,--export-dynamic \
            -lm -lpthread -ldl -lrt
    done
}

# released NAME: the released library and all tests, for valgrind.
released() {
    cargo build --release --locked
    mkdir -p "$work/$1"
    cp target/release/libmmopt.so "$work/$1/libmmopt.so.0"
    ln -sf libmmopt.so.0 "$work/$1/libmmopt.so"
    rm -f "$work/$1"/*.test "$work/$1"/*.log
    for source in $(sources); do
        wanted "$source" || continue
        case $source in *.cpp) compiler=c++ ;; *) compiler=cc ;; esac
        # shellcheck disable=SC2046
        compile $compiler "$work/$1/$(basename "${source%.*}").test" "$source" \
            $(libraries "$source") -L"$work/$1" -lmmopt -Wl,-rpath,"$work/$1" -lm -lpthread
    done
}

address() {
    command -v clang >/dev/null || { not_run address "no clang"; return 0; }
    library address -Zsanitizer=address "" ||
        { not_run address "no nightly Rust that builds it"; return 0; }
    sanitizer address asan -fsanitize=address,undefined -fsanitize-trap=undefined
    FUZZ="$SECONDS_OF_FUZZING 1" ASAN_OPTIONS=detect_leaks=1 run_all address "$work/address" env
}

thread() {
    command -v clang >/dev/null || { not_run thread "no clang"; return 0; }
    library thread "-Zsanitizer=thread --cfg race_detector" -Zbuild-std || {
        not_run thread "no nightly Rust with rust-src (rustup component add rust-src)"
        return 0
    }
    sanitizer thread tsan -fsanitize=thread
    # ONNX Runtime is not instrumented: what it does with its own locks is not seen.
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1:halt_on_error=0:exitcode=66:suppressions=$root/scripts/tsan.supp"
    sees_races "thread (ThreadSanitizer)" "$work/thread" env || return 0
    FUZZ="${SECONDS_OF_RACES:-60} 1" LIVES=50 run_all "thread (ThreadSanitizer)" "$work/thread" env
}

memcheck() {
    command -v valgrind >/dev/null || { not_run memcheck "no valgrind"; return 0; }
    released memcheck
    FUZZ="1000 1 2000" LIVES=50 run_all memcheck "$work/memcheck" valgrind -q --error-exitcode=9 \
        --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
        --suppressions="$root/scripts/valgrind.supp" --num-callers=24
}

for which in "${@:-address thread memcheck}"; do
    for one in $which; do $one; done
done
exit $status

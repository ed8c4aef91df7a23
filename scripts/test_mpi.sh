#!/bin/sh
# Ranks of MPI: test_mpi.sh LIBRARY_FOLDER. For each MPI that is installed (Open MPI, MPICH): the
# communicator of mmopt_mpi.h on 1 to 4 ranks, and ranks that end, stall, give up or differ. Installs
# Open MPI where it runs as root and apt has it; says so where there is no MPI.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
libraries=$(cd "$1" && pwd)

if ! command -v mpicc >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -q libopenmpi-dev openmpi-bin >/dev/null 2>&1 || true
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
major=$(sed -n 's/^version = "\([0-9]*\).*/\1/p' Cargo.toml | head -n 1)
ln -s "$libraries/libmmopt.so" "$work/libmmopt.so"
ln -s "$libraries/libmmopt.so" "$work/libmmopt.so.$major"

# compile MPICC PROGRAM: a program of tests/mpi.
compile() {
    "$1" -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -Iinclude -Iexamples/c \
        "tests/mpi/$2.c" -o "$work/$2" "-L$work" -lmmopt -lm "-Wl,-rpath,$work"
}

# The two launchers, and how each lets ranks live on when one has ended.
open_mpi() {
    n=$1
    shift
    timeout 300 mpirun.openmpi --allow-run-as-root --oversubscribe -quiet --enable-recovery -n "$n" "$@"
}
mpich() {
    n=$1
    shift
    timeout 300 mpiexec.mpich -disable-auto-cleanup -n "$n" "$@"
}

# Ranks end without MPI_Finalize in these, so what the launcher returns says nothing: each surviving
# rank prints a line.
survivors() {
    launcher=$1 n=$2 mode=$3
    rm -f "$work"/rank.*
    "$launcher" "$n" "$work/check" "$mode" "$work" >"$work/log" 2>&1 || true
    if [ "$(cat "$work"/rank.* | grep -c '^rank . after')" != $((n - 1)) ] || grep failed: "$work"/rank.*; then
        cat "$work/log" "$work"/rank.*
        echo "FAILED: $launcher, a rank that $mode"
        exit 1
    fi
    cat "$work/rank.0"
}

suite() {
    launcher=$1 mpicc=$2
    echo "== $launcher: $("$mpicc" -show | head -c 60)"
    compile "$mpicc" check
    for n in 1 2 3 4; do
        "$launcher" "$n" "$work/check" works
    done
    for mode in ends stalls aborts differs; do
        survivors "$launcher" 3 "$mode"
    done
}

found=no
for both in "open_mpi mpicc.openmpi" "mpich mpicc.mpich"; do
    # shellcheck disable=SC2086
    set -- $both
    if command -v "$2" >/dev/null; then
        found=yes
        suite "$1" "$2"
    else
        echo "not run: no $2"
    fi
done
[ "$found" = yes ] || echo "not run: no MPI"

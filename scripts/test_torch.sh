#!/bin/sh
# Modules of libtorch under mmopt (bindings/cpp/mmopt_torch.hpp), against the libtorch inside the
# PyPI package `torch`; says "not run" where there is none.
#
#   scripts/test_torch.sh LIBRARIES BUILD
#
# LIBRARIES: the folder with the built libmmopt.so. BUILD: a folder for programs. MMOPT_TORCH names
# the folder of the package `torch` (with include/ and lib/); else `python3` is asked, or
# MMOPT_TEST_PYTHON. LD_LIBRARY_PATH may hold what that libtorch needs besides.
set -eu

libraries=$1
build=$2
source=$(dirname "$0")/..
python=${MMOPT_TEST_PYTHON:-python3}
torch=${MMOPT_TORCH:-}
if [ -z "$torch" ]; then
    torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))' 2>/dev/null) || torch=
fi
if [ -z "$torch" ] || [ ! -f "$torch/lib/libtorch_cpu.so" ]; then
    echo "not run: no libtorch; pip install torch, or set MMOPT_TORCH to the package's folder"
    exit 0
fi
mkdir -p "$build"
# Programs look for libmmopt by its soname.
[ -e "$libraries/libmmopt.so.0" ] || ln -sf libmmopt.so "$libraries/libmmopt.so.0"
# libtorch for GPUs names libraries that a program for the CPU does not call.
compile() {
    "${CXX:-c++}" -std="${TORCH_STANDARD:-c++20}" -O1 -I"$source/include" -I"$source/bindings/cpp" \
        -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" "$1" -o "$2" \
        -L"$libraries" -lmmopt -L"$torch/lib" -Wl,--no-as-needed -ltorch_cpu -lc10 \
        -Wl,--allow-shlib-undefined -Wl,-rpath,"$libraries" -Wl,-rpath,"$torch/lib"
}
for program in tests/cpp/torch_test.cpp examples/cpp/torch_encoders.cpp; do
    name=$(basename "$program" .cpp)
    compile "$source/$program" "$build/$name"
    "$build/$name"
done

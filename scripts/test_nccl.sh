#!/bin/sh
# Compiles include/mmopt_nccl.h as C and C++ against the nccl.h that is found: in the folders that
# NCCL_INCLUDE names (separated by colons, with those of the CUDA runtime), in /usr/include and in
# /usr/local/cuda/include; where there is none, against those that fetch_nccl_headers.sh puts into DIR
# (build/nccl). It links and runs nothing.
#
#   scripts/test_nccl.sh [DIR]
set -eu
cd "$(dirname "$0")/.."

fetched=${1:-build/nccl}
nccl='' cuda='' crt='' flags=''

# find_headers FOLDER...
find_headers() {
    nccl='' cuda='' crt='' flags=''
    for folder in "$@"; do
        [ -f "$folder/nccl.h" ] && nccl=$folder
        [ -f "$folder/cuda_runtime.h" ] && cuda=$folder
        [ -f "$folder/crt/host_config.h" ] && crt=$folder
        case $folder in
            /usr/include) ;;
            *) [ -d "$folder" ] && flags="$flags -isystem $folder" ;;
        esac
    done
    [ -n "$nccl" ] && [ -n "$cuda" ] && [ -n "$crt" ]
}

folders=$(echo "${NCCL_INCLUDE:-}" | tr ':' ' ')
# shellcheck disable=SC2086
if ! find_headers $folders /usr/include /usr/local/include /usr/local/cuda/include; then
    if ! scripts/fetch_nccl_headers.sh "$fetched" || ! find_headers "$fetched"; then
        echo "not run: no nccl.h with a CUDA runtime; NCCL_INCLUDE names folders to look in"
        exit 0
    fi
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo '#include <mmopt_nccl.h>' >"$work/a.c"
echo '#include <mmopt_nccl.h>' >>"$work/a.c"
echo 'int main(void) { mmopt_communicator *c; return mmopt_nccl_communicator_create(NULL, 1, &c) != NULL; }' \
    >>"$work/a.c"
cp "$work/a.c" "$work/a.cpp"
warnings="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude"
# shellcheck disable=SC2086
cc -std=c99 $warnings $flags "$work/a.c"
# shellcheck disable=SC2086
c++ -std=c++17 $warnings $flags "$work/a.cpp"
echo "mmopt_nccl.h compiles against $nccl/nccl.h"

#!/bin/sh
# Adapters that libmmopt trains against Python's peft, both ways: peft loads what libmmopt saves, and
# libmmopt loads what peft saves, with equal logits (tests/peft/). Says "not run" where there is no
# Python with torch, transformers and peft, and none can be made.
#
#   scripts/test_peft.sh LIBRARIES BUILD
#
# LIBRARIES: the folder with the built libmmopt.so. BUILD: a folder for a virtual environment,
# programs and models. MINILM: a folder with all-MiniLM-L6-v2; by default it is fetched, and left out
# where that fails. MMOPT_TEST_PYTHON names a Python that has the packages; else a virtual
# environment is made. TORCH_INDEX names another index of packages for torch, such as one with
# builds for the CPU alone.
set -eu

libraries=$1
build=$2
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$build"
build=$(cd "$build" && pwd)
python=${MMOPT_TEST_PYTHON:-}
if [ -z "$python" ]; then
    python=$build/venv/bin/python
    install() { "$build/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
    [ -e "$build/venv/made" ] ||
        { python3 -m venv "$build/venv" &&
            install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.15.0 &&
            install transformers==5.24.0 peft==0.21.2 && touch "$build/venv/made"; } || true
fi
if ! "$python" -c 'import peft, torch, transformers' 2>"$build/missing"; then
    echo "not run: no Python with torch, transformers and peft ($(tail -n 1 "$build/missing"))"
    exit 0
fi
# Programs look for libmmopt by its soname.
[ -e "$libraries/libmmopt.so.0" ] || ln -sf libmmopt.so "$libraries/libmmopt.so.0"
"${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -O1 -I"$source/include" \
    "$source/tests/peft/adapters.c" -o "$build/adapters" -L"$libraries" -lmmopt \
    -Wl,-rpath,"$libraries"
rm -rf "$build/models"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
minilm=${MINILM:-$build/minilm}
PYTHON=$python "$source/scripts/fetch_pretrained.sh" "$minilm" 2>"$build/missing" || {
    echo "not run with all-MiniLM-L6-v2: $(tail -n 1 "$build/missing")"
    minilm=
}
"$python" "$source/tests/peft/models.py" "$build/models" ${minilm:+"$minilm"} >"$build/log" 2>&1 ||
    { tail -n 20 "$build/log"; exit 1; }
while read -r name task targets; do
    # shellcheck disable=SC2086 # The targets are words.
    "$build/adapters" "$build/models" "$name" "$task" $targets
done <"$build/models/list"
"$python" "$source/tests/peft/compare.py" "$build/models"

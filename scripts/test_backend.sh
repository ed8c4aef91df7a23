#!/bin/sh
# The node tests of the ONNX standard, and its models converted from PyTorch, as the PyPI package
# `onnx` has them: float inputs are trained through the C ABI, values are compared with the
# standard's, gradients with differences (tests/backend/). Ends with 1 where one fails, or is
# refused for a reason that docs/operators.md does not name.
#
#   scripts/test_backend.sh LIBRARIES BUILD
#
# LIBRARIES: the folder with the built libmmopt. BUILD: a folder for a virtual environment, models
# and logs. MMOPT_TEST_PYTHON names the Python.
set -eu

libraries=$1 build=$2
source=$(cd "$(dirname "$0")/.." && pwd)
python=${MMOPT_TEST_PYTHON:-python3}
version=1.23.2
jobs=${JOBS:-2}

mkdir -p "$build"
build=$(cd "$build" && pwd)
if [ ! -e "$build/venv/onnx-$version" ]; then
    "$python" -m venv "$build/venv"
    "$build/venv/bin/pip" install --quiet "onnx==$version"
    touch "$build/venv/onnx-$version"
fi
rm -rf "$build/cases"
"$build/venv/bin/python" "$source/tests/backend/cases.py" "$build/cases"

[ -e "$libraries/libmmopt.so.0" ] || ln -sf libmmopt.so "$libraries/libmmopt.so.0"
"${CC:-cc}" -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -O1 -I"$source/include" \
    "$source/tests/backend/gradients.c" -o "$build/gradients" -L"$libraries" -lmmopt \
    -Wl,-rpath,"$libraries" -lm

# One process for each model, so that a crash is one failure.
cat >"$build/one.sh" <<'END'
folder=$1 name=$2 loss=$3 trained=$4
status=0
line=$(timeout 120 "$folder/gradients" "$folder/cases/$name.onnx" "$loss" "$trained" 2>/dev/null) ||
    status=$?
[ -n "$line" ] || line="failed ended with status $status"
echo "$name $line"
END
xargs -P "$jobs" -L 1 sh "$build/one.sh" "$build" <"$build/cases/list" | sort >"$build/results"

# Reasons of refusals, as docs/operators.md has them: an operator of its tables has a rule.
awk -v page="$source/docs/operators.md" '
    BEGIN {
        while ((getline line < page) > 0) {
            split(line, cell, " *[|] *")
            if (cell[3] ~ /^[0-9]+$/ || cell[3] ~ /^(ai.onnx|com.microsoft)$/) has_rule[cell[2]] = 1
        }
    }
    function named(reason) {
        return reason ~ /no gradient rule (for|with)/ ||
            reason ~ /only operators without a gradient read it|it is empty/ ||
            reason ~ /is too old, 7 is the oldest supported/ || reason ~ /Scan means something else/ ||
            reason ~ /has no kernel for this form of it/ || reason ~ /lies in the padding/ ||
            reason ~ /nonpad_kv_seqlen/ || reason ~ /qk_matmul_output_mode 2 with positions/ ||
            reason ~ /has no form in standard operators|depends on data/
    }
    { name = $1; verdict = $2; n[verdict]++ }
    verdict == "failed" { print }
    verdict == "refused" {
        reason = $0
        sub(/^[^ ]* refused [0-9]+ /, "", reason)
        operator = reason
        if (!sub(/^.*no gradient rule for the operator /, "", operator)) operator = ""
        sub(/[^A-Za-z0-9].*$/, "", operator)
        if (!named(reason) || operator in has_rule) { print name " refused for another reason: " reason; n["failed"]++ }
        sub(/^.*(, opset [0-9]+\)|no trainable parameter.*\x27): /, "", reason)
        sub(/: ONNX Runtime: .*/, "", reason)
        reasons[substr(reason, 1, 110)]++
    }
    END {
        for (reason in reasons) printf "refused %4d: %s\n", reasons[reason], reason | "sort -k2,2nr"
        close("sort -k2,2nr")
        printf "test-backend: %d passed, %d refused, %d failed\n", n["passed"], n["refused"], n["failed"]
        exit n["failed"] > 0 || n["passed"] == 0
    }' "$build/results"

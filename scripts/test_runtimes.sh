#!/bin/sh
# Runs the same graphs on several versions of ONNX Runtime: gradients of exported models against
# their references, every gradient rule against differences, and then the runtimes against each
# other (those that are zero in truth against the size of the terms that cancel in them, see
# docs/runtime.md). The last lines are tables; exit status 1 on any failure.
#
#   scripts/test_runtimes.sh RUNTIMES OUT
#
# RUNTIMES: a folder that gets a folder for each version. OUT: a folder for logs and gradients.
set -eu

[ $# -eq 2 ] || {
    echo "usage: $0 RUNTIMES OUT" >&2
    exit 2
}
runtimes=$1 out=$2
cargo=${CARGO:-cargo}
here=$(dirname "$0")
newest=1.32.0
versions="1.19.2 1.24.4 $newest"

for version in $versions; do
    "$here/fetch_runtime.sh" "$version" "$runtimes/$version"
done

models=tests/data/oracle
if [ -d ../shared/oracle ]; then
    models="$models ../shared/oracle"
else
    echo "not run: no ../shared/oracle; the models of tests/data alone"
fi

# The whole workspace, as `make test`: for parts of it Cargo would build the dependencies again.
"$cargo" build --release --locked --workspace --bin check_gradients
"$cargo" test --release --locked --workspace --no-run --test gradients
check=${CARGO_TARGET_DIR:-target}/release/check_gradients

failed=no
rows=$out/table
rm -rf "$out"
mkdir -p "$out"
# The figure in front of a word of a line.
before() { sed -n "s/.* \([0-9][0-9]*\) $1.*/\1/p"; }
# The sum over the lines `gradcheck NAME: N cases, …` of the figure in front of a word.
total() {
    grep -oE 'gradcheck [a-z]+: [0-9]+ cases[^;]*' "$2" |
        sed -n "s/.*[^0-9]\([0-9][0-9]*\) $1.*/\1/p" | awk '{ n += $1 } END { print n + 0 }'
}

pairs=
for version in $versions; do
    folder=$out/$version
    mkdir -p "$folder"
    MMOPT_ORT_LIB=$(cd "$runtimes/$version/lib" && pwd)/libonnxruntime.so
    export MMOPT_ORT_LIB
    echo "ONNX Runtime $version: exported models"
    # shellcheck disable=SC2086 # the folders are separate words
    "$check" --dump "$folder/models.safetensors" $models >"$folder/models.log" 2>&1 ||
        failed=yes
    grep -E '^(FAIL|old )' "$folder/models.log" || true
    line=$(tail -n 1 "$folder/models.log")
    echo "$line"

    echo "ONNX Runtime $version: gradient rules"
    MMOPT_GRADCHECK_DUMP=$(cd "$folder" && pwd) "$cargo" test --release --locked --workspace --test gradients \
        -- rules:: --nocapture --test-threads 1 >"$folder/rules.log" 2>&1 || failed=yes
    grep -E '^gradcheck (skip|note): ' "$folder/rules.log" || true
    grep -E '^test result' "$folder/rules.log" || {
        echo "FAIL ONNX Runtime $version: the process ended early:"
        tail -n 3 "$folder/rules.log"
        failed=yes
    }
    grep -E -A 40 '^[0-9]+ failed:' "$folder/rules.log" || true

    refused=$(echo "$line" | before 'refused by')
    skipped=$(total skipped "$folder/rules.log")
    # The newest runtime knows every opset that is tested.
    if [ "$version" = $newest ] && [ "$refused$skipped" != 00 ]; then
        echo "FAIL ONNX Runtime $version: $refused models refused, $skipped cases skipped"
        failed=yes
    fi
    log=$folder/rules.log
    echo "| $version | ${line%% files*} | $(echo "$line" | before passed) | ${refused:-?} |" \
        "$(echo "$line" | before failed) | ${line##*worst } | $(total cases "$log") |" \
        "$(total passed "$log") | $skipped | $(total failed "$log") |" >>"$rows"
    pairs="$pairs $version=$folder"
done
unset MMOPT_ORT_LIB

# shellcheck disable=SC2086 # the folders are separate words
"$check" --compare $pairs >"$out/pairs.log" || failed=yes
cat "$out/pairs.log"
echo
echo "| runtime | models | passed | refused: opset too new | failed | worst error |" \
    "rule cases | passed | skipped: too new | failed |"
echo "|---|---|---|---|---|---|---|---|---|---|"
cat "$rows"
if [ $failed = yes ]; then
    echo "test-runtimes: FAILED"
    exit 1
fi
echo "test-runtimes: ok"

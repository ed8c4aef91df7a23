#!/bin/sh
# How well replicas train that meet now and then: ranks_accuracy.sh LIBRARY_FOLDER RUNS [report].
# Trains BERT, GPT-2 and RoBERTa with 2 layers of 128 on SST-2, as the cells fresh/sst2/independent of
# `make experiments` do, on 2 ranks of Open MPI with 16 examples each a step, for 5 seeds: gradients summed
# at every step; DiLoCo that meets every 50 steps; local SGD, the same with plain means. 750 steps, so that
# the last one is a meeting. Appends one JSON line to RUNS for each run, and goes on after a kill with the
# first run that RUNS lacks. `report` prints the tables of docs/ranks.md and runs nothing.
# DATA names the folder of build/experiments/data/sst2/fresh/1, which `experiments data` writes.
set -eu
cd "$(dirname "$0")/.."
libraries=$(cd "$1" && pwd)
runs=$2
data=${DATA:-build/experiments/data/sst2/fresh/1}
work=build/experiments/ranks

# the_command ARM SEED: what joint_train is called with.
the_command() {
    case $1 in
    sum) meetings= ;;
    diloco) meetings="--sync-every 50" ;;
    local_sgd) meetings="--sync-every 50 --outer-lr 1 --outer-momentum 0" ;;
    esac
    echo "--task classification --data $data/train.tsv --eval $data/held_in.tsv --test $data/eval.tsv" \
        "--mode independent --models bert,gpt2,roberta --seed $2 --epochs 4 --steps 750 --lr 5e-4 --batch 32" \
        "--max-length 64 --threads 1 $meetings --json $work/$1.$2.json --quiet"
}

one() {
    cell=ranks/sst2/$1/$2
    # A line that a kill has cut off does not count.
    if grep -q "^{\"cell\": \"$cell\",.*}}\$" "$runs" 2>/dev/null; then return; fi
    arguments=$(the_command "$1" "$2")
    # shellcheck disable=SC2086
    mpirun.openmpi --allow-run-as-root --oversubscribe --bind-to none -quiet --mca mpi_yield_when_idle 1 \
        -n 2 "$work/joint_train" $arguments
    if [ -s "$runs" ] && [ "$(tail -c 1 "$runs" | wc -l)" = 0 ]; then echo >>"$runs"; fi
    printf '{"cell": "%s", "arm": "%s", "seed": %s, "n_ranks": 2, "processor": "%s", "commit": "%s", "command": "mpirun -n 2 joint_train %s", "result": %s}\n' \
        "$cell" "$1" "$2" "$processor" "$commit" "$arguments" "$(tr -d '\n' <"$work/$1.$2.json")" >>"$runs"
}

# Of the last record of each run: for each model the score that `field` names; mean, standard deviation,
# and the paired difference to summed gradients with its 95% interval by Student's t.
table() {
    awk -v field="$1" '
        function score(line, model,    at, rest) {
            while ((at = index(line, "\"" model "\": {")) > 0) rest = line = substr(line, at + length(model) + 4)
            return 100 * substr(rest, index(rest, "\"" field "\": ") + length(field) + 4)
        }
        function add(arm, model, seed, x) {
            value[arm, model, seed] = x; n[arm, model]++; sum[arm, model] += x; squares[arm, model] += x * x
        }
        function deviation(n, sum, squares,    d) {
            d = n > 1 ? (squares - sum * sum / n) / (n - 1) : 0
            return d > 0 ? sqrt(d) : 0
        }
        function cell(arm, model,    k, seed, d, ds, dd, text) {
            k = n[arm, model]
            if (k == 0) return " |"
            text = sprintf(" %.2f ± %.2f", sum[arm, model] / k, deviation(k, sum[arm, model], squares[arm, model]))
            if (arm == "sum") return text " |"
            for (seed = 1; seed <= 5; seed++) if (((arm, model, seed) in value) && (("sum", model, seed) in value)) {
                d = value[arm, model, seed] - value["sum", model, seed]; pairs[arm, model]++; ds += d; dd += d * d
            }
            k = pairs[arm, model]
            if (k < 2) return text " | |"
            return sprintf("%s | %+.2f ± %.2f |", text, ds / k, t[k] * deviation(k, ds, dd) / sqrt(k))
        }
        BEGIN { split("0 12.706 4.303 3.182 2.776", t, " "); split("bert gpt2 roberta mean", models, " ") }
        /^{"cell": .*}}$/ {
            match($0, /"arm": "[a-z_]*"/); arm = substr($0, RSTART + 8, RLENGTH - 9)
            match($0, /"seed": [0-9]*/); seed = substr($0, RSTART + 8, RLENGTH - 8) + 0
            mean = 0
            for (m = 1; m <= 3; m++) { x = score($0, models[m]); add(arm, models[m], seed, x); mean += x / 3 }
            add(arm, "mean", seed, mean)
        }
        END {
            for (m = 1; m <= 4; m++)
                print "| " models[m] " |" cell("sum", models[m]) cell("diloco", models[m]) cell("local_sgd", models[m])
            print "runs: " n["sum", "mean"] + 0 " of summed gradients, " n["diloco", "mean"] + 0 " of DiLoCo, " \
                n["local_sgd", "mean"] + 0 " of local SGD"
        }' "$runs"
}

if [ "${3:-}" != report ]; then
    command -v mpicc.openmpi >/dev/null || { echo "not run: no mpicc.openmpi"; exit 0; }
    [ -f "$data/train.tsv" ] || { echo "not run: no $data/train.tsv"; exit 0; }
    mkdir -p "$work" "$(dirname "$runs")"
    ln -sf "$libraries/libmmopt.so" "$work/libmmopt.so"
    ln -sf "$libraries/libmmopt.so" "$work/libmmopt.so.0"
    mpicc.openmpi -O2 -std=c99 -D_POSIX_C_SOURCE=200809L -DJOINT_TRAIN_MPI -Iinclude -Iexamples/c \
        examples/c/joint_train.c -o "$work/joint_train" "-L$work" -lmmopt -lm "-Wl,-rpath,$PWD/$work"
    processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    commit=${COMMIT:-$(git rev-parse --short=12 HEAD)}
    for seed in 1 2 3 4 5; do
        for arm in sum diloco; do one "$arm" "$seed"; done
    done
    for seed in 1 2 3 4 5; do one local_sgd "$seed"; done
fi
for what in "test_score the evaluation split" "score the held-in split"; do
    printf '\nAccuracy on %s, percent\n' "${what#* }"
    echo "| model | summed gradients | DiLoCo | difference | local SGD | difference |"
    echo "|---|---|---|---|---|---|"
    table "${what%% *}"
done

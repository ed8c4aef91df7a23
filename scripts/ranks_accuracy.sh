#!/bin/sh
# How well replicas train that meet now and then: ranks_accuracy.sh LIBRARY_FOLDER RUNS.
# Trains BERT, GPT-2 and RoBERTa with 2 layers of 128 on SST-2, as the cells fresh/sst2/independent of
# `make experiments` do, on 2 ranks of Open MPI with 16 examples each a step, for 5 seeds: gradients summed
# at every step; DiLoCo that meets every 50 steps, with the published settings and with those for few
# meetings; local SGD, the same with plain means. 750 steps, so that the last one is a meeting.
# Appends one JSON line to RUNS for each run, and goes on after a kill with the first run that RUNS
# lacks. `experiments ranks --runs RUNS` prints the tables of docs/ranks.md.
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
    diloco_few) meetings="--sync-every 50 --outer-lr 0.5 --outer-momentum 0.5" ;;
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
for arm in local_sgd diloco_few; do
    for seed in 1 2 3 4 5; do one "$arm" "$seed"; done
done

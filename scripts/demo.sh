#!/bin/sh
# The demonstration: real labelled sentences (generated ones without network), three models
# trained together, held-out accuracy, and a prediction from what was written to disk.
#
#   scripts/demo.sh BUILD       BUILD: where `make examples` put the programs
set -eu

build=$1
data=$build/demo/data
models=$build/demo/models
mkdir -p "$build/demo"

if scripts/fetch_data.sh "$data"; then
    set -- --data "$data/train.tsv" --eval "$data/eval.tsv"
else
    echo "demo: NO NETWORK: training on generated sentences instead of real ones"
    set -- --data synthetic --eval synthetic
fi
rm -rf "$models"
log=$build/demo/log
"$build/examples/joint_train" "$@" --models bert,gpt2,roberta --mode joint --seed 1 \
    --out "$models" --json "$build/demo/metrics.json" --epochs "${DEMO_EPOCHS:-2}" | tee "$log"
"$build/examples/predict" "$models" \
    "a warm, funny and moving film with a splendid cast" \
    "the plot is dull, the jokes fall flat and it never ends"
# Named entities in generated sentences, and a page about that run.
programs=$(cd "$build/examples" && pwd)
(cd "$build/demo" && "$programs/entities" && "$programs/report" entities.jsonl -o report.html)
echo "report: $build/demo/report.html"
sed -n 's/^classification: \(.*\) (.*/demo: \1/p' "$log" | tail -n 1 >"$build/demo/result"
cat "$build/demo/result"
cat "$build/demo/result" >>"$log"

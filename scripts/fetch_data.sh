#!/bin/sh
# Fetches real labelled sentences (movie review snippets) and writes them as
#   DIR/train.tsv and DIR/eval.tsv: text TAB label, label 1 for positive, 0 for negative
#
# usage: scripts/fetch_data.sh DIR [ARCHIVE]
#
# The sentences come inside the source package of vaderSentiment 3.3.2 (MIT licence), which is
# fetched by pip as the user has it configured; ARCHIVE is that package where it lies on disk
# already. Its checksum is pinned. PYTHON names the interpreter that has pip (default: python3).
# On any failure the exit status is not 0 and DIR is as it was.
set -eu

version=3.3.2
sha256=5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9
python=${PYTHON:-python3}

fail() {
    echo "fetch_data: $*" >&2
    exit 1
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "usage: $0 DIR [ARCHIVE]"
dir=${1%/}
here=$(cd "$(dirname "$0")" && pwd)
if [ -s "$dir/train.tsv" ] && [ -s "$dir/eval.tsv" ]; then
    echo "fetch_data: $dir has train.tsv and eval.tsv already"
    exit 0
fi

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.partial.XXXXXX") || fail "cannot write beside $dir"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

archive=${2:-}
if [ -z "$archive" ]; then
    command -v "$python" >/dev/null 2>&1 || fail "$python not found; set PYTHON"
    echo "vaderSentiment==$version --hash=sha256:$sha256" >"$work/requirements.txt"
    # pip prepares a source package's metadata before it keeps the file. It does so in an
    # environment of its own; where that cannot be filled, the user's setuptools may serve.
    download() {
        "$python" -m pip --disable-pip-version-check download --quiet --retries 2 --no-deps \
            --no-binary :all: --require-hashes --dest "$work" "$@" \
            -r "$work/requirements.txt" >"$work/log" 2>&1
    }
    download || { ! grep -q "No matching distribution" "$work/log" &&
        download --no-build-isolation; } || {
        tail -n 5 "$work/log" >&2
        fail "pip could not fetch the source package of vaderSentiment $version"
    }
    for archive in "$work"/[vV]ader*entiment-"$version".tar.gz; do :; done
fi
[ -f "$archive" ] || fail "$archive: no such file"

if command -v sha256sum >/dev/null 2>&1; then
    found=$(sha256sum <"$archive")
elif command -v shasum >/dev/null 2>&1; then
    found=$(shasum -a 256 <"$archive")
else
    found=$("$python" -m pip hash --algorithm sha256 "$archive" | sed -n 's/.*sha256://p')
fi
[ "${found%% *}" = "$sha256" ] || fail "$archive: the checksum is not $sha256"

inner=vaderSentiment-$version/additional_resources/hutto_ICWSM_2014.tar.gz
snippets=hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt
mkdir "$work/in" "$work/out"
gzip -dc "$archive" | tar xf - -C "$work/in" "$inner"
gzip -dc "$work/in/$inner" | tar xf - -C "$work/in" "$snippets"
LC_ALL=C awk -v train="$work/out/train.tsv" -v eval="$work/out/eval.tsv" \
    -f "$here/reviews.awk" "$work/in/$snippets" >"$work/out/README.txt"
{ [ -s "$work/out/train.tsv" ] && [ -s "$work/out/eval.tsv" ]; } || fail "no sentences found"

mkdir -p "$dir"
mv -f "$work/out/README.txt" "$work/out/eval.tsv" "$work/out/train.tsv" "$dir/"
sed -n 's/^counts: /fetch_data: /p' "$dir/README.txt"

#!/usr/bin/env bash
# Fuzzes the rules' attributes, the readers and the differentiator: fuzz.sh [SECONDS [TARGET...]].
# Random attributes take their own time first (RANDOM_CASES of them). The time is shared
# among the targets, one process at a time. Fetches the nightly toolchain and cargo-fuzz where
# they are missing. A find is left in fuzz/artifacts/TARGET and ends the run with an error.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-1800}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(reader differentiate weights checkpoint)

# Parts of the time: the small formats are exhausted sooner.
declare -A share=([reader]=45 [differentiate]=45 [weights]=5 [checkpoint]=5)

rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked

MMOPT_CORPUS=$PWD/fuzz/corpus cargo test --release --locked --test gradients fuzz::corpus -- --exact
# Rules under random attributes, 20,000 cases, against differences.
MMOPT_RANDOM_CASES=${RANDOM_CASES:-20000} cargo test --release --locked --test gradients \
    -- rules::random::random_attributes --exact --nocapture
total=0
for target in "${targets[@]}"; do total=$((total + ${share[$target]})); done
for target in "${targets[@]}"; do
    printf '\n== %s\n' "$target"
    # The code under test is safe Rust; without the address sanitizer a run sees three times as much.
    nice -n 19 cargo +nightly fuzz run --sanitizer none "$target" -- \
        -rss_limit_mb=2048 -timeout=10 -max_len=131072 -print_final_stats=1 \
        -max_total_time=$((seconds * ${share[$target]} / total))
done

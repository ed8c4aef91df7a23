#!/bin/sh
# Trains and differentiates on a GPU: gradients of exported models against their references, every
# gradient rule against differences that the processor computes, the trainer's tests, and what a
# joint step of three base-size models costs. Needs a GPU build of ONNX Runtime 1.17 or newer with
# its CUDA and cuDNN libraries where the loader finds them.
#
#   MMOPT_ORT_LIB=/path/to/libonnxruntime.so scripts/test_gpu.sh [DEVICE]
#
# DEVICE: cuda:N, default cuda:0. Exit status 1 on any failure.
set -eu

device=${1:-cuda:0}
cargo=${CARGO:-cargo}
[ -n "${MMOPT_ORT_LIB:-}" ] || {
    echo "$0: set MMOPT_ORT_LIB to a GPU build of libonnxruntime" >&2
    exit 2
}
failed=no

echo "exported models on $device"
"$cargo" run --release --locked -p mmopt-tools --bin check_gradients -- --device "$device" \
    tests/data/oracle || failed=yes

# One after another: a session that is opened while another one runs can fail in cuDNN.
echo "gradient rules on $device"
MMOPT_TEST_DEVICE=$device "$cargo" test --release --locked --test gradients -- \
    rules:: --nocapture --test-threads 1 || failed=yes

echo "the trainer on $device"
MMOPT_TEST_DEVICE=$device "$cargo" test --release --locked --test train -- trainer:: --nocapture ||
    failed=yes

for tf32 in 0 1; do
    BENCH_DEVICE=$device BENCH_TF32=$tf32 BENCH_BATCH=32 "$cargo" bench --locked --bench train ||
        failed=yes
done
[ $failed = no ]

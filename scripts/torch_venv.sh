#!/bin/sh
# A virtual environment with PyTorch for `make bench-torch`: scripts/torch_venv.sh [DIR]. The wheel
# on PyPI brings libraries for GPUs, some gigabytes; none is needed. TORCH_INDEX names another index,
# such as one with builds for the CPU alone.
set -eu

dir=${1:-$(dirname "$0")/../build/torch-venv}
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    torch==2.15.0 numpy
"$dir/bin/python" -c 'import torch; print("PyTorch", torch.__version__)'

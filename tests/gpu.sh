#!/usr/bin/env bash
# What can be checked on a machine with an NVIDIA card so far, with a built program: tests/gpu.sh [path of attnscope].
# Kernels are compiled there by NVRTC where it is found, run, and their numbers compared; then again from the PTX inside
# the program, as on a machine that has the driver alone.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-target/release/attnscope}
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export ATTNSCOPE_HOME="$home"
"$program" doctor --self-test
echo "and again without NVRTC:"
env -u CUDA_HOME -u CUDA_PATH -u VIRTUAL_ENV -u CONDA_PREFIX -u LD_LIBRARY_PATH HOME=/nonexistent PATH=/usr/bin:/bin \
    "$program" doctor --self-test

#!/usr/bin/env bash
# The full check on a machine with an NVIDIA card, in one command from a built program; needs Python 3.10 or later.
#
#     tests/gpu.sh [PROGRAM] [--model FILE.gguf|FOLDER]... [--only SECTION,...] [--python PYTHON]
#
# PROGRAM: target/release/attnscope if it is not said. Sections: doctor parity sanitizer speed kernels. Without --model the
# catalog's models that are on this machine are taken, those in models/, and the tiny one in tests/golden. PyTorch (and
# transformers) and compute-sanitizer are used where they are found; what is not is listed as absent.
# Each figure is a line: ok, missed, told (it has no limit), absent. They come again in a table at the end; the exit code is
# 1 where one is missed. GPU_TINY=1 takes sizes that a machine without a card can bear, to try the script alone.
set -uo pipefail

usage() { sed -n '4,6p' "$0" >&2; exit 2; }
program="" models=() only="doctor,parity,sanitizer,speed,kernels" python=python3
while [ $# -gt 0 ]; do
    case "$1" in
        --model | --only | --python)
            [ $# -ge 2 ] || usage
            case "$1" in
                --model) models+=("$(realpath "$2")") ;;
                --only) only=$2 ;;
                --python) python=$2 ;;
            esac
            shift 2
            ;;
        -*) usage ;;
        *) program=$(realpath "$1"); shift ;;
    esac
done
cd "$(dirname "$0")/.." || exit 2
program=${program:-$PWD/target/release/attnscope}
[ -x "$program" ] || { echo "$program is no program: build it with cargo build --release, or name one" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "$python is not here: name a Python with --python" >&2; exit 2; }

tiny=tests/golden/tiny/llama3_rope
data=${ATTNSCOPE_HOME:-$HOME/.local/share/attnscope}
if [ ${#models[@]} -eq 0 ]; then
    for model in "$data"/models/*/*.gguf models/twin-*; do
        [ -e "$model" ] && models+=("$model")
    done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# compiled kernels of earlier runs are not taken
export ATTNSCOPE_HOME=$work/home GPU_VERDICTS=$work/verdicts PYTHONDONTWRITEBYTECODE=1
: >"$GPU_VERDICTS"
verdict() { "$python" tests/gpu/verdict.py "$@"; }
wanted() { [[ ",$only," == *",$1,"* ]]; }
echo "== $("$program" --version), $(date -u +%F)"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "nvidia-smi is not here"
"$python" -c 'import torch; print("PyTorch", torch.__version__)' 2>/dev/null || echo "PyTorch is not here"

"$program" doctor --self-test --json >"$work/doctor.json" 2>"$work/doctor.err"
code=$?
if wanted doctor; then
    echo "== doctor"
    "$python" tests/gpu/doctor.py self-test "$work/doctor.json" "$work/doctor.err" $code
    ATTNSCOPE_CUDA_TOOLKIT=none "$program" doctor --self-test --json >"$work/bare.json" 2>"$work/bare.err"
    "$python" tests/gpu/doctor.py "self-test, driver alone" "$work/bare.json" "$work/bare.err" $?
fi
if [ $code -ne 0 ]; then
    echo "no card works here, so nothing else is tried:"
    cat "$work/doctor.err"
    exit 1
fi

if wanted parity; then
    for name in smollm2 gemma; do
        found=""
        for model in ${models[@]+"${models[@]}"}; do
            [[ "$(basename "$model" | tr '[:upper:]' '[:lower:]')" == *$name* ]] && found=1
        done
        [ -n "$found" ] || verdict absent "parity on $name" "no such model is here: name one with --model FILE.gguf"
    done
    checked=("$PWD/$tiny")
    for model in ${models[@]+"${models[@]}"}; do
        [ "$model" = "$PWD/$tiny" ] || checked+=("$model")
    done
    for model in "${checked[@]}"; do
        echo "== frames of $(basename "$model"), card against CPU in f32"
        "$python" tests/gpu/parity.py "$program" "$model"
    done
fi

if wanted sanitizer; then
    echo "== compute-sanitizer"
    sanitizer=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/bin command -v compute-sanitizer)
    if [ -z "$sanitizer" ]; then
        verdict absent "compute-sanitizer" "not on PATH, in CUDA_HOME, in /usr/local/cuda"
    else
        ids=$(seq -s, 1 7 280)
        runs=(
            "compare --model $tiny --ids $ids --lane snapkv@50% --lane h2o@50% --lane streaming@25% --steps 3 --device cuda"
            "trace --model $tiny --ids $ids --attn full --steps 2 --device cuda --out $work/checked.safetensors"
            "bench --kernels --tiny --device cuda"
        )
        for tool in memcheck racecheck initcheck; do
            for run in "${runs[@]}"; do
                # shellcheck disable=SC2086  # no word of these runs has a blank
                timeout 300 "$sanitizer" --tool $tool --error-exitcode 99 "$program" $run >"$work/checked" 2>&1
                code=$?
                summary=$(grep -o '[A-Z]* SUMMARY: .*' "$work/checked" | tail -1)
                kind=missed
                [ $code -eq 0 ] && [ -n "$summary" ] && kind=ok
                verdict $kind "$tool: ${run%% *}" "${summary:-it ends with $code}" "0 errors"
                [ $kind = ok ] || grep -m 6 '=========' "$work/checked"
            done
        done
    fi
fi

if wanted speed; then
    speedy=("${models[@]+"${models[@]}"}")
    if [[ "$(printf '%s\n' "${speedy[@]+"${speedy[@]}"}" | tr '[:upper:]' '[:lower:]')" != *smollm2* ]]; then
        verdict absent "speed of SmolLM2-135M" "the model is not here, and the limits are its; name it with --model FILE.gguf"
        speedy+=("$tiny")
    fi
    for model in "${speedy[@]}"; do
        echo "== speed of $(basename "$model")"
        "$python" tests/gpu/speed.py "$program" "$model"
    done
fi

if wanted kernels; then
    echo "== kernels alone"
    "$python" tests/gpu/kernels.py "$program"
fi

verdict table "$GPU_VERDICTS"

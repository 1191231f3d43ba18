#!/usr/bin/env bash
# Both twins from nothing: data, training (two processes of one thread), export, measurements, plots, golden numbers.
# Needs python 3.11 or newer, a C++ compiler (torch.compile), apt-get and dpkg-deb (one package is downloaded, not installed).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/../target/twins}
models=${2:-$here/../models}
golden=${3:-$here/../tests/golden/twins}
mkdir -p "$work/run"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -r "$here/requirements.txt"
export PYTHONPATH=$here OMP_NUM_THREADS=1
python="$work/venv/bin/python"
cd "$here"
"$python" data.py "$work/data"
cp plan.json "$work/run/plan.json"
"$python" train.py plain "$work/data" "$work/run" &
plain=$!
"$python" train.py attnres "$work/data" "$work/run"
wait "$plain"
for twin in plain attnres; do
    "$python" export.py "$twin" "$work/data" "$work/run" "$models"
    "$python" evaluate.py "$twin" "$work/data" "$models"
done
"$python" plot.py "$work/run" "$models"
"$python" golden.py "$models" "$golden"

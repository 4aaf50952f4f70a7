#!/usr/bin/env bash
# submitit: a task that ends by sys.exit(75), as one that was interrupted and wants to be started again does, leaves no
# result, and the local executor calls it FINISHED. Who waits for such a job cannot tell it from one that went well.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" submitit==1.5.4
cd "$folder"
cat >task.py <<'END'
import sys


def interrupted():
    sys.exit(75)
END
cat >watch.py <<'END'
import sys

import submitit
import task

executor = submitit.LocalExecutor(folder="logs")
executor.update_parameters(timeout_min=2)
job = executor.submit(task.interrupted)
try:
    job.result()
    seen = "a result"
except Exception as error:
    message = str(error)
    seen = f"{type(error).__name__}, in which 75 is {'named' if 'exitcode 75' in message else 'not named'}; it says: "
    seen += " ".join(line.strip() for line in message.splitlines() if "exitcode" in line or "state" in line)
print(f"submitit {submitit.__version__}")
print("expected: a failed job that tells its exit status, 75")
print(f"seen: state {job.state}, {seen}")
sys.exit(0 if job.state == "FINISHED" and "not named" in seen else 1)
END
PYTHONPATH="$folder/packages:$folder" timeout 100 python3 watch.py

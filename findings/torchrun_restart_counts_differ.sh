#!/usr/bin/env bash
# torchrun on several machines: when a worker dies, all workers of the job are started again, but only the machine on
# which it died counts that. TORCHELASTIC_RESTART_COUNT then differs between ranks of one round, so keys or file names
# made with it, which work on one machine, part the ranks for good.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" torch==2.11.0 numpy==2.2.6
cd "$folder"
cat >worker.py <<'END'
import os
import signal
import time
from pathlib import Path

import torch.distributed as dist

machine, count = os.environ["GROUP_RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
again = Path("died").exists()
Path(f"round{int(again)}.{machine}").write_text(count)
store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
store.set(f"here {again} {machine}", "")
store.wait([f"here {again} 0", f"here {again} 1"])
if not again and machine == "1":
    Path("died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(3 if again else 60)
END
export PYTHONPATH="$folder/packages" OMP_NUM_THREADS=1
port=$(python3 -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
for machine in 0 1; do
    timeout 150 python3 -m torch.distributed.run --nnodes=2 --nproc_per_node=1 --max-restarts=2 --rdzv_id=job \
        --rdzv_backend=c10d --rdzv_endpoint="127.0.0.1:$port" --rdzv_conf=is_host=$((1 - machine)) worker.py \
        >"agent$machine" 2>&1 &
done
wait
echo "torch $(python3 -c 'import torch; print(torch.__version__)')"
first="$(cat round0.0) and $(cat round0.1)"; second="$(cat round1.0) and $(cat round1.1)"
echo "expected: TORCHELASTIC_RESTART_COUNT of two machines 0 and 0, and 1 and 1 after a worker of one has died"
echo "seen: $first, and $second"
[ "$first" = "0 and 0" ] && { [ "$second" = "0 and 1" ] || [ "$second" = "1 and 0" ]; }

"""Takes the place of `align` where a test is about the job around it: in its first go it works
until a signal asks it to stop, then saves for SAVING seconds (of each node: 0,3) and ends with
ENDS; in later goes it ends with 0 at once. Says what it was given.

python asked_to_stop.py <words>
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

asked: list[str] = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: asked.append(signal.Signals(number).name))

node, restart = int(os.environ["SLURM_NODEID"]), int(os.environ.get("SLURM_RESTART_COUNT", 0))
devices = os.environ.get("CUDA_VISIBLE_DEVICES")
print(json.dumps({"node": node, "restart": restart, "gpus": devices, "words": sys.argv[1:]}), flush=True)
if str(node) == os.environ.get("BROKEN_NODE"):
    sys.exit(3)
while not asked and not restart:
    time.sleep(0.1)
if asked:
    saving = os.environ.get("SAVING", "0").split(",")
    time.sleep(float(saving[node % len(saving)]))
    print(f"stopped by {asked[0]}", flush=True)
    sys.exit(int(os.environ.get("ENDS", 75)))

"""`align doctor comm=true` in which rank 1 is in trouble:  doctor_with_trouble.py <absent | stuck |
raising> <arguments>
"""

import os
import sys
import time

import torch.distributed as dist

from align.cli import main

trouble, *words = sys.argv[1:]


def stuck(*_, **__):
    time.sleep(100)


def raising(*_, **__):
    raise RuntimeError("a cable is out")


if os.environ["RANK"] == "1":
    if trouble == "absent":
        time.sleep(100)
    dist.all_reduce = {"stuck": stuck, "raising": raising}[trouble]
sys.exit(main(["doctor", *words]))

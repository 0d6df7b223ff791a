"""Whether the processes of a launch reach each other: a roll call, then an all-reduce that is checked and timed.

The roll call goes through the launcher's store, which still speaks when an all-reduce hangs, so that a process that does not answer
can be named. All that may hang is done in a thread of its own.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from align.doctor.check import BROKEN, OK, WARNING, Check
from align.errors import UserError

GPU_BYTES, CPU_BYTES = 64 << 20, 1 << 20
"""Size of the all-reduce that is timed."""
ROUNDS = 5
GRACE = 10.0
"""Seconds in which a process says that it lives, once something hangs."""
LAUNCH = (
    "accelerate launch --multi_gpu --num_processes 2 -m align.cli doctor comm=true (on a CPU with ACCELERATE_USE_CPU=true before it, or "
    "--config_file accelerate_configs/cpu.yaml in place of --multi_gpu: `--cpu` gives a world of one process)"
)
NETWORK = "look at the network between the hosts: NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names an interface, NCCL_DEBUG=INFO says more"
ABSENT = "look at the output of these processes and at their hosts; comm_timeout=<seconds> waits longer"


@dataclass
class World:
    """The processes of a launch, and the store through which they find each other."""

    store: Any
    rank: int
    size: int
    seconds: float
    """How long to wait for a process."""

    def roll_call(self, what: str, say: str, seconds: float | None = None) -> dict[int, str]:
        """{rank: what it said} of all processes that answer in time, this one included."""
        keys = [f"{what}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], say)
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while not self.store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.1)
        return {rank: self.store.get(key).decode() for rank, key in enumerate(keys) if self.store.check([key])}

    def agree(self, status: int | None = None) -> int:
        """The exit status that the process who speaks gives; the others wait for it, since a launcher ends all when one has failed."""
        if status is not None:
            self.store.set("status", str(status))
            return status
        seconds = self.seconds + GRACE
        try:
            self.store.wait(["status"], timedelta(seconds=seconds))
        except RuntimeError:  # torch's DistStoreError
            print(f"rank {self.rank}: no conclusion was heard within {seconds:g} s; {ABSENT}", file=sys.stderr)
            return 1
        return int(self.store.get("status"))


@dataclass
class Heard:
    """What came of it."""

    checks: list[Check]
    speaks: bool
    """Whether this process prints: the first one that answers."""
    hangs: bool = False
    """Whether a thread of this process is stuck in a collective, so that it cannot end in the usual way."""


def join(seconds: float) -> World | None:
    """The world that a launcher made; None without one, or of one process. Raises UserError where its store is not reached."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    import accelerate  # noqa: F401 - before any clock runs: on a cluster's file system this takes its time
    import torch.distributed as dist

    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=seconds))))
    except (RuntimeError, ValueError) as error:  # torch's DistNetworkError
        raise UserError(
            f"rank {os.environ.get('RANK')} on {socket.gethostname()} cannot reach {where}: {error}"
        ) from error
    return World(dist.PrefixStore("align-doctor", store), rank, size, seconds)


def alone() -> Check:
    """What there is to say of a world of one."""
    return Check("processes", WARNING, "one process: there is nobody to reduce with", LAUNCH)


def hear(world: World) -> Heard:
    """Roll call, then the all-reduce, then who came through it."""
    hosts = world.roll_call("joined", socket.gethostname())
    if silent := [str(rank) for rank in range(world.size) if rank not in hosts]:
        found = f"of {world.size} answered {_listed(hosts)}; within {world.seconds:g} s not: rank {', '.join(silent)}"
        return Heard([Check("processes", BROKEN, found, ABSENT)], world.rank == min(hosts))
    checks = [Check("processes", OK, _listed(hosts))]
    begun = time.monotonic()
    outcome = _within(world.seconds, lambda: all_reduce(world))
    trouble = "" if isinstance(outcome, Check) else str(outcome) or type(outcome).__name__
    ended = world.roll_call("ended", trouble, world.seconds + GRACE - (time.monotonic() - begun))
    troubles = {rank: text for rank, text in ended.items() if text}
    troubles |= {rank: "does not answer any more" for rank in range(world.size) if rank not in ended}
    if troubles:
        said = "; ".join(f"rank {rank} ({hosts[rank]}): {text}" for rank, text in sorted(troubles.items()))
        checks.append(Check("all-reduce", BROKEN, said, ABSENT if len(ended) < world.size else NETWORK))
    else:
        assert isinstance(outcome, Check)
        checks.append(outcome)
    return Heard(checks, world.rank == min(ended), hangs=isinstance(outcome, TimeoutError))


def all_reduce(world: World) -> Check:
    """A sum that is known, then its time, over the backend that a training run would use here."""
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    from align.methods.distributed import machine_defaults

    run = machine_defaults()
    chosen = {"backend": run["ddp_backend"]} if "ddp_backend" in run else {}
    on_cpu = run.get("use_cpu", False)
    # Its own limit is longer than ours, which names who is silent.
    state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=2 * (world.seconds + GRACE)), **chosen)
    kind = f"{state.distributed_type.value} over {state.backend}"
    if state.num_processes != world.size:
        raise RuntimeError(f"accelerate runs {state.num_processes} processes ({kind}), the launcher {world.size}")
    size = CPU_BYTES if state.device.type == "cpu" else GPU_BYTES
    expected = world.size * (world.size + 1) / 2
    medians = []
    for numbers in (1, size // 4):  # float32
        tensor = torch.full((numbers,), state.process_index + 1.0, device=state.device)
        dist.all_reduce(tensor)
        if wrong := tensor[tensor != expected].tolist():
            raise RuntimeError(f"the sum of all ranks is {wrong[0]:g} in place of {expected:g} ({kind})")
        medians.append(statistics.median(_timed(tensor) for _ in range(ROUNDS)))
    latency, seconds = medians
    # What a link carries, whatever the number of processes: the bus bandwidth of nccl-tests (PERFORMANCE.md there).
    bandwidth = 2 * (world.size - 1) / world.size * size / seconds
    found = f"{kind}, {world.size} processes: right; {size >> 20} MiB in {seconds * 1e3:.2f} ms ({bandwidth / 1e9:.2f} GB/s a link)"
    return Check("all-reduce", OK, f"{found}, one number in {latency * 1e6:.0f} us")


def leave() -> None:
    """Close the process group, where all went well: NCCL complains of one that is left open."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _timed(tensor: Any) -> float:
    import torch
    import torch.distributed as dist

    dist.barrier()
    begun = time.monotonic()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.monotonic() - begun


def _within(seconds: float, work: Callable[[], Check]) -> Check | Exception:
    """What `work` gives or raises; a TimeoutError where it does neither in time, and its thread is left to itself."""
    results: list[Check | Exception] = [TimeoutError(f"did not come through within {seconds:g} s")]

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[-1]


def _listed(hosts: dict[int, str]) -> str:
    """Hosts with their ranks."""
    ranks: dict[str, list[str]] = {}
    for rank, host in sorted(hosts.items()):
        ranks.setdefault(host, []).append(str(rank))
    return "; ".join(f"{host}: rank {', '.join(of)}" for host, of in ranks.items())

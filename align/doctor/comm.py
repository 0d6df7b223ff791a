"""Check that the processes of a launch reach each other: a roll call, then a timed all-reduce.

The roll call uses the launcher's key-value store, which still works when an all-reduce hangs, so
silent processes can be named. Everything that may hang runs in its own thread.
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
"""Size of the timed all-reduce on a GPU and on a CPU."""
ROUNDS = 5
GRACE = 10.0
"""Seconds for a process to report that it is alive, after something hangs."""
LAUNCH = (
    "to check several: accelerate launch --multi_gpu --num_processes 2 -m align.cli doctor comm=true (on a CPU, put "
    "ACCELERATE_USE_CPU=true before it, or use --config_file accelerate_configs/cpu.yaml instead of --multi_gpu; "
    "`--cpu` starts only one process)"
)
NETWORK = "check the network between the hosts: NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME sets the interface, NCCL_DEBUG=INFO shows more"
ABSENT = "check the output of these processes and their hosts; comm_timeout=<seconds> waits longer"


@dataclass
class World:
    """The processes of a launch, and their key-value store."""

    store: Any
    rank: int
    size: int
    seconds: float
    """Seconds to wait for a process."""

    def roll_call(self, what: str, say: str, seconds: float | None = None) -> dict[int, str]:
        """{rank: its message} of all processes that answer in time, including this one."""
        keys = [f"{what}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], say)
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while not self.store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.1)
        return {rank: self.store.get(key).decode() for rank, key in enumerate(keys) if self.store.check([key])}

    def agree(self, status: int | None = None) -> int:
        """Share the exit status of the printing process; the others wait for it.

        A launcher ends all processes when one has failed.
        """
        if status is not None:
            self.store.set("status", str(status))
            return status
        seconds = self.seconds + GRACE
        try:
            self.store.wait(["status"], timedelta(seconds=seconds))
        except RuntimeError:  # torch's DistStoreError
            print(f"rank {self.rank}: received no conclusion within {seconds:g} s; {ABSENT}", file=sys.stderr)
            return 1
        return int(self.store.get("status"))


@dataclass
class Heard:
    """Result of the roll call and the all-reduce."""

    checks: list[Check]
    speaks: bool
    """Whether this process prints: the lowest rank that answers."""
    hangs: bool = False
    """Whether a thread is stuck in a collective, so that the process cannot exit normally."""


def join(seconds: float) -> World | None:
    """The launcher's world; None without a launcher, or with one process.

    Raises UserError if its store cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    import accelerate  # noqa: F401 - before any timing: on a cluster's file system this import is slow
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
    """The check for a world of one process."""
    return Check("processes", WARNING, "only one process, so communication cannot be checked", LAUNCH)


def hear(world: World) -> Heard:
    """Roll call, all-reduce, then a roll call of the processes that finished it."""
    hosts = world.roll_call("joined", socket.gethostname())
    if silent := [str(rank) for rank in range(world.size) if rank not in hosts]:
        found = f"of {world.size} processes answered: {_listed(hosts)}; no answer within {world.seconds:g} s: rank {', '.join(silent)}"
        return Heard([Check("processes", BROKEN, found, ABSENT)], world.rank == min(hosts))
    checks = [Check("processes", OK, _listed(hosts))]
    begun = time.monotonic()
    outcome = _within(world.seconds, lambda: all_reduce(world))
    trouble = "" if isinstance(outcome, Check) else str(outcome) or type(outcome).__name__
    ended = world.roll_call("ended", trouble, world.seconds + GRACE - (time.monotonic() - begun))
    troubles = {rank: text for rank, text in ended.items() if text}
    troubles |= {rank: "no longer answers" for rank in range(world.size) if rank not in ended}
    if troubles:
        said = "; ".join(f"rank {rank} ({hosts[rank]}): {text}" for rank, text in sorted(troubles.items()))
        checks.append(Check("all-reduce", BROKEN, said, ABSENT if len(ended) < world.size else NETWORK))
    else:
        assert isinstance(outcome, Check)
        checks.append(outcome)
    return Heard(checks, world.rank == min(ended), hangs=isinstance(outcome, TimeoutError))


def all_reduce(world: World) -> Check:
    """Check the result of an all-reduce, then time it, with the backend of a training run here."""
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    from align.methods.distributed import machine_defaults

    run = machine_defaults()
    chosen = {"backend": run["ddp_backend"]} if "ddp_backend" in run else {}
    on_cpu = run.get("use_cpu", False)
    # Its timeout is longer than the roll call's, which names silent processes.
    state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=2 * (world.seconds + GRACE)), **chosen)
    kind = f"{state.distributed_type.value} over {state.backend}"
    if state.num_processes != world.size:
        raise RuntimeError(
            f"accelerate runs {state.num_processes} processes ({kind}), but the launcher started {world.size}"
        )
    size = CPU_BYTES if state.device.type == "cpu" else GPU_BYTES
    expected = world.size * (world.size + 1) / 2
    medians = []
    for numbers in (1, size // 4):  # float32
        tensor = torch.full((numbers,), state.process_index + 1.0, device=state.device)
        dist.all_reduce(tensor)
        if wrong := tensor[tensor != expected].tolist():
            raise RuntimeError(f"the sum of all ranks is {wrong[0]:g}, expected {expected:g} ({kind})")
        medians.append(statistics.median(_timed(tensor) for _ in range(ROUNDS)))
    latency, seconds = medians
    # Bus bandwidth as in nccl-tests (PERFORMANCE.md there): independent of the number of processes.
    bandwidth = 2 * (world.size - 1) / world.size * size / seconds
    found = f"{kind}, {world.size} processes: correct sum; {size >> 20} MiB in {seconds * 1e3:.2f} ms ({bandwidth / 1e9:.2f} GB/s per link)"
    return Check("all-reduce", OK, f"{found}, one number in {latency * 1e6:.0f} us")


def leave() -> None:
    """Close the process group after success: NCCL warns about a group that is left open."""
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
    """Result or exception of `work`.

    A TimeoutError if it does not finish in time (its thread stays).
    """
    results: list[Check | Exception] = [TimeoutError(f"did not finish within {seconds:g} s")]

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

"""The files that a SLURM cluster needs: slurm.conf, a key, and folders for its programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path


def slurm_conf(
    folder: Path,
    nodes: Sequence[str],
    cpus: int,
    gpus: int,
    max_array_size: int,
    kill_wait: int,
    grace: int,
    settings: Sequence[str],
) -> list[str]:
    """The lines of slurm.conf."""
    controller, *ports = _free_ports(len(nodes) + 1)
    user = pwd.getpwuid(os.getuid()).pw_name
    has_gpus = f" Gres=gpu:{gpus}" if gpus else ""
    return [
        "ClusterName=test",
        "SlurmctldHost=localhost(127.0.0.1)",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"SlurmctldPort={controller}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # A requeued job waits until its old credential has expired (120 seconds by default; at least 5).
        f"AuthInfo=socket={folder}/munge/socket,cred_expire=5",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1,default_queue_depth=1000",
        "PriorityType=priority/basic",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "SlurmctldTimeout=60",
        "SlurmdTimeout=60",
        "InactiveLimit=0",
        "MinJobAge=3600",
        f"KillWait={kill_wait}",
        f"MaxArraySize={max_array_size}",
        # Jobs derive ports from their id, and clusters of several test processes share this machine.
        f"FirstJobId={1 + secrets.randbelow(60000)}",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={folder}/finished.txt",
        *(["GresTypes=gpu"] if gpus else []),
        *(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            f"RealMemory=4000{has_gpus} State=UNKNOWN"
            for node, port in zip(nodes, ports, strict=True)
        ),
        *_partitions(grace),
        *settings,
    ]


def _partitions(grace: int) -> list[str]:
    return [
        "PartitionName=main Nodes=ALL Default=YES State=UP PreemptMode=OFF PriorityTier=1",
        "PartitionName=low Nodes=ALL State=UP PreemptMode=REQUEUE GraceTime=0 PriorityTier=1",
        f"PartitionName=gentle Nodes=ALL State=UP PreemptMode=REQUEUE GraceTime={grace} PriorityTier=1",
        "PartitionName=patient Nodes=ALL State=UP PreemptMode=REQUEUE GraceTime=120 PriorityTier=1",
        "PartitionName=high Nodes=ALL State=UP PreemptMode=OFF PriorityTier=10",
    ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_files(folder: Path, lines: list[str], gpus: int) -> None:
    """The lines of slurm.conf in a file, a key, the files of the GPUs, and the folders of the programs."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    # Files that exist and are no terminal of anybody: SLURM counts them as GPUs.
    (folder / "gres.conf").write_text(f"Name=gpu File=/dev/tty[1-{gpus}]\n" if gpus else "")
    (folder / "cgroup.conf").write_text("")

"""A SLURM of its own in one folder: real munged, slurmctld and a slurmd for each node, all on the
loopback of this machine.

Runs as root and as an ordinary user, starts in a second or two, and is gone afterwards. Needs
Debian's packages slurmctld, slurmd, slurm-client and munge, or others that bring the same commands.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from tests.support.slurm_files import slurm_conf, write_files

ROOT = Path(__file__).parents[2]
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}


def missing() -> list[str]:
    """What of SLURM's commands is not on this machine."""
    return [command for command in COMMANDS if _found(command) is None]


def _found(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/local/sbin")


class Cluster:
    """A running cluster: submit, look, wait; what goes wrong shows the logs."""

    def __init__(self, folder: Path, nodes: Sequence[str]) -> None:
        self.folder = folder
        self.nodes = tuple(nodes)
        """Names of the nodes, which are addresses: 127.0.1.1, 127.0.1.2, ..."""
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))
        } | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": str(ROOT),
            "ALIGN": f"{sys.executable} -m align.cli",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.daemons: dict[str, subprocess.Popen] = {}

    def call(self, *command: str, check: bool = True, **environment: str) -> str:
        """Run one of SLURM's commands -> what it prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment | environment, cwd=self.folder, timeout=60
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip() + ("" if check else done.stderr)

    def submit(self, *arguments: str | Path, **environment: str) -> str:
        """`sbatch` -> the job's id. Output goes to <folder>/job-<id>[_<index>].out."""
        output = "job-%A_%a.out" if any(str(a).startswith("--array") for a in arguments) else "job-%j.out"
        words = ["sbatch", "--parsable", f"--output={self.folder / output}", *map(str, arguments)]
        return self.call(*words, **environment)

    def states(self, job: str) -> dict[str, str]:
        """State by id (an array's elements: <id>_<index>) of a job, while SLURM remembers it (MinJobAge)."""
        lines = self.call("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def state(self, job: str) -> str:
        """Of one job or one element of an array."""
        return self.states(job)[job]

    def details(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of one job."""
        words = self.call("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, happened: Callable[[], object], what: str, seconds: float = 90) -> None:
        """Until that is so; an AssertionError with all logs where it does not come."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:g} s for: {what}\n{self.logs()}")
            time.sleep(0.1)

    def wait_for_state(self, job: str, *states: str, seconds: float = 90) -> None:
        """Until all elements of a job are in one of these states."""

        def there() -> bool:
            found = self.states(job)
            return bool(found) and set(found.values()) <= set(states)

        self.wait(there, f"{job} in {states}", seconds)

    def wait_until_ended(self, job: str, seconds: float = 180) -> dict[str, str]:
        """-> the last state of each element."""
        self.wait_for_state(job, *ENDED, seconds=seconds)
        return self.states(job)

    def output(self, job: str) -> str:
        """What a job wrote where it has no file of its own."""
        file = self.folder / f"job-{job}.out"
        return file.read_text() if file.is_file() else ""

    def logs(self) -> str:
        """The queue, what jobs wrote, and the end of the daemons' logs: for messages of failed tests."""
        queue = subprocess.run(
            ["squeue", "-a", "-r", "-t", "all"], capture_output=True, text=True, env=self.environment, timeout=60
        )
        parts = [f"--- squeue\n{queue.stdout}{queue.stderr}"]
        for file in sorted([*self.folder.glob("job-*.out"), *self.folder.glob("*.log")]):
            parts.append(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}")
        return "\n".join(parts)

    def start_node(self, node: str) -> None:
        """Its slurmd."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", self.environment["SLURM_CONF"])

    def fail_node(self, node: str) -> None:
        """What a power cut does: the slurmd and all that ran there are gone at once; the controller is told."""
        self.kill_node(node)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=failed")

    def kill_node(self, node: str) -> None:
        """The same, and nobody tells the controller."""
        reporting, others = [psutil.Process(self.daemons.pop(node).pid)], []
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    others.append(process)
                    above = process.parent()
                    if above and above.name() == "slurmstepd":
                        reporting.append(above)
        # None shall see another end and report it: all stop, then those die first that would
        # report. (The others may wake once more: a stopped process whose parent dies is sent SIGHUP
        # and SIGCONT.)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in [*reporting, *others]:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)

    def _start(self, name: str, command: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("a")
        path = str(_found(command))
        self.daemons[name] = subprocess.Popen(
            [path, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, cwd=self.folder
        )
        log.close()

    def _processes(self) -> Iterator[psutil.Process]:
        """Every process of this cluster but the test's own: they all know its configuration."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    yield process

    def begin(self) -> None:
        """Start all daemons and wait until every node is there."""
        socket_file = self.folder / "munge" / "socket"
        folder = self.folder / "munge"
        files = [f"--{kind}-file={folder / kind}" for kind in ("key", "log", "pid", "seed")]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={socket_file}", *files)
        self.wait(socket_file.exists, "munged", 10)
        self._start("slurmctld", "slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for node in self.nodes:
            self.start_node(node)
        self.wait(lambda: self._idle() == len(self.nodes), "all nodes idle", 30)

    def _idle(self) -> int:
        assert all(daemon.poll() is None for daemon in self.daemons.values()), self.logs()
        return self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split().count("idle")

    def end(self) -> None:
        """Kill everything: nothing here is worth keeping."""
        for _ in range(20):  # a daemon that is being killed may have started another process
            left = [p for p in self._processes() if p.pid != os.getpid()]
            left += [psutil.Process(d.pid) for d in self.daemons.values() if d.poll() is None]
            if not left:
                break
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(left, timeout=2)
        for daemon in self.daemons.values():
            daemon.wait()


@contextlib.contextmanager
def slurm_cluster(
    nodes: int = 2,
    cpus: int = 4,
    gpus: int = 0,
    max_array_size: int = 1001,
    kill_wait: int = 30,
    grace: int = 20,
    settings: Sequence[str] = (),
) -> Iterator[Cluster]:
    """A cluster while the block runs. `nodes` with `cpus` each (and `gpus` that are none: device
    files that exist).

    Partitions: `main` (the default), `low` (preempted and requeued without grace), `gentle` (the
    same with `grace` seconds), `patient` (with two minutes: time for a real run to save on a busy
    machine), `high` (preempts all of these). `kill_wait`: seconds from SIGTERM to SIGKILL.
    `settings`: further lines of slurm.conf.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a path of a socket has at most 108 characters
    cluster = Cluster(folder, [f"127.0.1.{number + 1}" for number in range(nodes)])
    write_files(folder, slurm_conf(folder, cluster.nodes, cpus, gpus, max_array_size, kill_wait, grace, settings), gpus)
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def ids(states: dict[str, str], state: str) -> set[int]:
    """Indices of an array's elements in this state."""
    return {int(re.split("_", job)[1]) for job, found in states.items() if found == state}

"""`align train`: accelerate's launcher for align/train.py, with exit statuses for schedulers.

accelerate's launchers exit with 1 for any status of a training process, are killed by SIGUSR1, and
kill their processes half a minute after SIGTERM, saved or not. This command passes signals to the
training processes, which save and stop, and it exits with 75 if the run is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from align import complaint
from align.config.compose import compose, compose_run
from align.config.files import launch_file, shipped_folder
from align.interruption import EXIT_AGAIN, SIGNALS
from align.run_folder import run_folder
from align.settings import LaunchConfig

SECTION = "launch."
PATIENCE = 5.0
"""Seconds before a signal is passed on again: processes that still import libraries ignore it."""


def main(arguments: Sequence[str]) -> int:
    """Launch, pass signals on, and return the exit status. Raises UserError."""
    launch = compose(LaunchConfig, [a.removeprefix(SECTION) for a in arguments if a.startswith(SECTION)]).config
    of_run = [argument for argument in arguments if not argument.startswith(SECTION)]
    config = compose_run(of_run).config  # a typing error should not wait for a launch
    command = launch_command(launch, config.num_processes)
    if config.dry_run and command == launch_command(LaunchConfig(config="cpu"), 1):
        return _here(of_run)
    run = run_folder(config)
    files = (run.manifest_file, run.evaluation_interrupted)
    before = [_stamp(file) for file in files]
    with tempfile.TemporaryDirectory() as shared:
        status, asked = _run([*command, *of_run], {complaint.FILE: str(Path(shared, "complaints"))})
    # A signal may reach only the training processes. Files of an earlier launch are ignored.
    new = [_stamp(file) not in (None, stamp) for file, stamp in zip(files, before, strict=True)]
    told = (new[0] and run.manifest().get("status") == "interrupted") or new[1]
    return EXIT_AGAIN if status and (asked or told) else status


def launch_command(launch: LaunchConfig, processes: int | None) -> list[str]:
    """`accelerate launch ... align/train.py` with `processes` over all machines. Raises UserError.

    Options that are not given come from the user's file; with a shipped file, all GPUs of each
    machine train.
    """
    import torch

    file = launch_file(launch.config or ("ddp" if torch.cuda.is_available() else "cpu"))
    if processes is None and file.parent == shipped_folder("accelerate_configs"):
        processes = _devices() * (launch.num_machines or 1)
    options = {
        "config_file": file,
        "num_processes": processes,
        "num_machines": launch.num_machines,
        "machine_rank": launch.machine_rank,
        "main_process_ip": launch.main_process_ip,
        "main_process_port": launch.main_process_port,
    }
    given = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    script = Path(__file__).parents[1] / "train.py"
    return [sys.executable, "-m", "align.commands.launcher", *given, str(script)]


def _stamp(file: Path) -> int | None:
    """Modification time of a file in ns; None if it does not exist."""
    return file.stat().st_mtime_ns if file.is_file() else None


def _here(of_run: Sequence[str]) -> int:
    """Run in this process: a dry run saves nothing, and a launcher would import torch again."""
    from align.train import main as train

    os.environ["ACCELERATE_USE_CPU"] = "true"  # as in accelerate_configs/cpu.yaml
    return train(of_run)


def _devices() -> int:
    """Number of GPUs of this machine; 1 without GPUs."""
    import torch

    return max(torch.cuda.device_count(), 1)


def _run(command: Sequence[str], variables: dict[str, str]) -> tuple[int, bool]:
    """-> (exit status of the launcher, whether it received a signal to stop)."""
    asked: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    # A signal to a whole job step reaches the launcher too. torch's launcher handles the signals in
    # this variable; the others inherit ignored signals.
    environment = os.environ | variables | {"PET_SIGNALS_TO_HANDLE": "SIGINT"}
    launcher = subprocess.Popen(command, env=environment, preexec_fn=_ignore_signals)
    passed_on = False
    while True:
        try:
            return launcher.wait(timeout=PATIENCE if passed_on else 0.5), bool(asked)
        except subprocess.TimeoutExpired:
            if asked:
                passed_on = True
                _pass_on(asked[-1], launcher)
        except KeyboardInterrupt:  # the terminal signals the launcher too
            launcher.wait()
            return 130, False


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _pass_on(number: int, launcher: subprocess.Popen) -> None:
    """Send a signal to the launcher's children, which train; they end their own children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(launcher.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

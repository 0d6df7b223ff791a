"""Interpreters that have vLLM: the stand-in, and the real one where it is installed."""

import contextlib
import os
import stat
import sys
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
REAL = os.environ.get("VSIL_ALIGN_VLLM_PYTHON") or next(
    (str(python) for python in [REPOSITORY / ".venv-vllm" / "bin" / "python"] if python.exists()), None
)
"""The interpreter of `make vllm-venv`; None where it was not made."""


def stand_in(folder: Path, fault: str = "") -> str:
    """A program that is this interpreter with the stand-in as its package `vllm`."""
    python = folder / f"python-{fault.replace(':', '-')}"
    python.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={HERE / 'stand_in_vllm'}:{REPOSITORY} STAND_IN={fault} STAND_IN_OF={folder}\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return str(python)


def command_lines() -> list[str]:
    """The command lines of all processes, their words divided by null characters."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(file.read_bytes().decode(errors="replace"))
    return found

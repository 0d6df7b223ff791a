"""A process of vLLM's environment, with its log, that ends with this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.answering.vllm import guarded
from align.errors import UserError

PATIENCE = guarded.PATIENCE + 5
"""Seconds that a process has to end, before it is killed."""
LINES, WIDTH = 15, 300
"""Lines of a log in an error, and characters of each."""


class GuardedProcess:
    """A process in a group of its own, which ends when this process ends in any way."""

    def __init__(
        self, python: str, arguments: Sequence[str], environment: dict[str, str], section: str, **streams: Any
    ):
        """Start `python` with arguments. `section` names its setting in errors; `streams` go to Popen.

        Raises UserError if it cannot be started.
        """
        ends, life = os.pipe()
        self._life: int | None = life
        descriptor, log = tempfile.mkstemp(prefix="vllm-", suffix=".log")
        self.log = Path(log)
        try:
            self.popen: subprocess.Popen[str] = subprocess.Popen(
                [python, guarded.__file__, str(ends), *arguments],
                stderr=descriptor,
                env=environment,
                pass_fds=[ends],
                start_new_session=True,  # Ctrl-C of a terminal reaches only this process, which ends the other
                text=True,
                encoding="utf-8",
                **({"stdout": descriptor} | streams),
            )
        except OSError as error:
            os.close(life)
            self.log.unlink()
            raise UserError(f"{section}.python={python}: cannot be started: {error}") from error
        finally:
            os.close(ends)
            os.close(descriptor)

    def close(self, keep_log: bool = False) -> None:
        """End the process and its own processes."""
        self.begin_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if not keep_log:
            self.log.unlink(missing_ok=True)

    def begin_end(self) -> None:
        """Ask the process to end, without waiting."""
        if self._life is not None:
            os.close(self._life)
        self._life = None

    def end(self) -> str:
        """How it ended, for a message."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(PATIENCE)
        status = self.popen.poll()
        if status is None:
            return "closed its output"
        return (
            f"ended with the status {status}" if status >= 0 else f"ended by the signal {signal.Signals(-status).name}"
        )

    def last_lines(self) -> str:
        """The last lines of its log, for a message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.is_file() else []
        return f"The last lines of {self.log}:\n" + "".join(f"  {line[:WIDTH]}\n" for line in lines[-LINES:])

"""Run lmms_eval as a child process: log without secret keys, progress, clean end."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from align.answering.sending import SHORTEST_KEY
from align.config.endpoints import CREDENTIAL
from align.errors import UserError
from align.evaluation.hook import child_environment
from align.interruption import SIGNALS

HEARD = (*SIGNALS, signal.SIGHUP)
PATIENCE = 5.0
"""Seconds that the child has to end after SIGTERM: fewer than align.evaluation.hook waits."""
LAST_LINES = 12
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS = re.compile(r"Model Responding:\s+\d+%\|.*\| (\d+)/(\d+) ")
INSTALL = (
    "lmms_eval is not a dependency of this package (its requirements conflict). Install it in its own environment and "
    "set lmms_eval.command='<its python> -m lmms_eval' (docs/evaluation.md)"
)


class _Told(BaseException):
    """Raised when a signal asks this process to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Within the block, a signal first closes what is open; then the process ends by that signal.

    So no child outlives this process, and no merged model is left behind.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only there
        yield
        return

    def tell(number: int, _: object) -> None:
        for heard in HEARD:
            signal.signal(heard, signal.SIG_IGN)  # a launcher may repeat the signal
        raise _Told(number)

    before = {number: signal.signal(number, tell) for number in HEARD}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    except _Told as told:
        restore()
        os.kill(os.getpid(), told.number)
        raise SystemExit(128 + told.number) from None
    finally:
        restore()


def version_of(launcher: Sequence[str]) -> str | None:
    """lmms_eval's version; None if it does not print it.

    Raises UserError if it cannot be started.
    """
    for question in ("version", "--help"):  # earlier versions have no `version`
        try:
            asked = subprocess.run(
                [*launcher, question], capture_output=True, text=True, env=child_environment(), timeout=300, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{shlex.join(launcher)}: cannot be started: {error}. {INSTALL}") from error
        if asked.returncode == 0:
            found = re.search(r"lmms[-_]eval\s+v?(\d\S*)", asked.stdout) if question == "version" else None
            return found.group(1) if found else None
    raise UserError(f"{shlex.join(launcher)}: cannot be started: {_last(asked.stdout + asked.stderr, 3)}. {INSTALL}")


def run(command: Sequence[str], log: Path, tell: Callable[[int, int], None]) -> None:
    """Run a command to its end, with its output in `log`.

    Raises UserError with its last lines if its status is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Its own session: a launcher and its processes end together, and only from here.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{shlex.join(command)}: cannot be started: {error}. {INSTALL}") from error
    try:
        _listen(child, log, tell)
        status = child.wait()
    except BaseException:
        _end(child)
        raise
    if status:
        raise UserError(failure(command, log, f"ended with status {status}"))


def failure(command: Sequence[str], log: Path, what: str) -> str:
    """Text of an error: what happened, the last lines, and the command to try by hand."""
    said = _last(log.read_text(encoding="utf-8", errors="replace"), LAST_LINES)
    return f"lmms_eval {what}. Its output is in {log}; the last lines:\n{said}\nThe command was: {shlex.join(command)}"


def without_secrets(text: str) -> str:
    """Remove keys from a text: lmms_eval prints HF_TOKEN in its arguments."""
    for name, value in os.environ.items():
        if CREDENTIAL.search(name) and len(value) >= SHORTEST_KEY:
            text = text.replace(value, f"<{name}>")
    return text


def _listen(child: subprocess.Popen[bytes], log: Path, tell: Callable[[int, int], None]) -> None:
    """Log a child's output line by line; of a progress bar only the last state."""
    assert child.stdout is not None
    rest, told = b"", None
    with log.open("w", encoding="utf-8") as file:
        while chunk := os.read(child.stdout.fileno(), 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                file.write(without_secrets(_drawn(line)) + "\n")
            file.flush()
            bars = PROGRESS.findall((b"\n".join(lines) + rest).decode("utf-8", "replace"))
            if bars and bars[-1] != told:
                told = bars[-1]
                tell(int(told[0]), int(told[1]))
        file.write(without_secrets(_drawn(rest)))


def _drawn(line: bytes) -> str:
    return COLOUR.sub("", line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2])


def _last(text: str, lines: int) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and its own processes."""
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.wait(timeout=PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):  # remaining processes
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

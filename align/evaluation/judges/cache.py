"""Per-user cache of valid verdicts of model judges: one response to one item is judged once.

Invalid verdicts stay only in the run's folder, because their cause may be temporary. There is a
file for each judge and settings. Several processes may write to one file: each line is appended
under a lock.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from filelock import FileLock

from align.console import Display
from align.errors import UserError
from align.files import cache_folder

SCHEMA = 1


class VerdictCache:
    """The verdicts of one judge."""

    def __init__(self, identity: dict[str, Any]):
        digest = hashlib.sha256(json.dumps([SCHEMA, identity], sort_keys=True).encode()).hexdigest()[:16]
        self.path = cache_folder("verdicts") / f"{identity['judge']}-{digest}.jsonl"
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write the verdict cache ({error}). Set XDG_CACHE_HOME to a folder with write "
                "permission."
            ) from error

    def read(self, display: Display) -> dict[str, dict[str, Any]]:
        """Read {key of item and response: fields of the verdict}.

        Damaged lines are skipped and reported; they only cost another request. Invalid verdicts,
        which earlier versions stored here, are skipped too.
        """
        found, damaged = {}, 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    key = record.pop("key")
                    if record["verdict"] != "invalid":
                        found[key] = record
                except (ValueError, KeyError, TypeError, AttributeError):
                    damaged += line.endswith(b"\n")  # another process may be writing the last one
        if damaged:
            display.say(f"{self.path}: {damaged} damaged lines are skipped; their verdicts are requested again")
        return found

    def add(self, key: str, verdict: dict[str, Any]) -> None:
        """Store one verdict."""
        line = (json.dumps({"key": key} | verdict, ensure_ascii=False) + "\n").encode()
        with self._lock, self.path.open("r+b") as file:
            _drop_cut_line(file)
            file.write(line)


def _drop_cut_line(file: Any) -> None:
    """Seek to the end of the file, and remove a last line that a killed process did not finish."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    file.seek(whole)

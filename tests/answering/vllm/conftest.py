"""What tests of vLLM's processes share: the stand-in's interpreter, whose processes can be found, and must end."""

import contextlib
import time
from pathlib import Path

import pytest

from tests.support.vllm_environments import stand_in


def processes(folder):
    """Processes of the stand-in's interpreters in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            variables = (process / "environ").read_bytes().decode(errors="replace")
            if f"STAND_IN_OF={folder}" in variables and (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def all_end(folder, seconds=15):
    """Wait for the end of all these processes."""
    deadline = time.monotonic() + seconds
    while left := processes(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture
def python(tmp_path):
    """A function: fault -> the stand-in's interpreter. All its processes must have ended after the test."""
    yield lambda fault="": stand_in(tmp_path, fault)
    all_end(tmp_path)

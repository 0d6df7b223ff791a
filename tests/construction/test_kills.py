"""kill -9 at twenty places over all steps, then the same command: the same files as if nothing had
happened, and nothing asked twice.
"""

import signal
import subprocess
import sys

import pytest

from tests.support.construction import result, served
from tests.support.launch import ENVIRONMENT, ROOT
from tests.support.role_server import role_server

KILLS = 20
DEATHS = ROOT / "tests" / "support" / "construction_deaths.py"


def construct(death, arguments):
    """The construction in a process of its own -> (exit status, what it printed)."""
    done = subprocess.run(
        [sys.executable, str(DEATHS), str(death), *arguments],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_twenty_kills_change_nothing(tmp_path):
    small = ["elements=2", "chunk=3"]
    with role_server() as server:
        status, said = construct(0, served(server, tmp_path / "undisturbed", *small))
        assert status == 0, said
        written = int(said.rpartition("wrote ")[2])
        asked = dict(server.asked)
        server.asked.clear()
        apart = written / (KILLS + 1)
        killed, there = 0, 0
        while killed < KILLS:
            # What is stored is not written again, so each process dies a little further on.
            at = max(round(apart * (killed + 1)) - there, 1)
            status, said = construct(at, served(server, tmp_path / "killed", *small))
            if status != -signal.SIGKILL:
                break
            killed += 1
            there = round(apart * killed) - 1
        status, said = construct(0, served(server, tmp_path / "killed", *small))
        assert status == 0, said
    assert killed == KILLS
    assert result(tmp_path / "killed") == result(tmp_path / "undisturbed")
    # At most the requests in flight at a kill are asked again.
    assert sum(server.asked.values()) <= sum(asked.values()) + KILLS * 8

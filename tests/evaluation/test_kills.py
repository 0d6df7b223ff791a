"""kill -9 wherever it hurts, then the same command: the same files as if nothing had happened, and
little asked twice.
"""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.judge_server import judge_server
from tests.support.launch import ENVIRONMENT, ROOT, align

CONCURRENCY = 4
DEATHS = ROOT / "tests" / "support" / "deaths.py"
COMPARED = ("settings.json", "verdicts.vlsbench.jsonl", "items.vlsbench.jsonl", "summary.vlsbench.json")

KILLS = (
    ("responses", 10),
    ("responses", 40),
    ("half a response", 17),
    ("responses", 90),
    ("half a response", 25),
    ("responses", 150),
    ("responses", 190),
    ("responses not in order yet", 1),
    ("no verdict yet", 0),
    ("verdicts", 5),
    ("half a line of the cache", 20),
    ("verdicts", 50),
    ("known to the cache alone", 15),
    ("verdicts", 90),
    ("half a verdict", 18),
    ("verdicts", 130),
    ("half a line of the cache", 30),
    ("verdicts", 190),
    ("verdicts not in order yet", 1),
    ("no summary yet", 1),
)
"""Where each process is killed: by this one, when so many lines are there in all; or at that place
in itself, the so-manyth time that it comes there.
"""


class Place:
    """A folder with n items, a cache of its own, and a server that counts."""

    def __init__(self, folder: Path, n: int, server):
        self.folder, self.n, self.server = folder, n, server
        self.evaluation = folder / "run" / "evaluation" / "local"
        folder.mkdir()
        rows = [
            {"id": f"r{i}", "prompt": f"tell me about item {i}", "role": "harmful", "harm_in": "text"} for i in range(n)
        ]
        (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def arguments(self, *more: str) -> list[str]:
        return [
            "eval",
            f"generation.base_url={self.server.url}",
            "generation.model=answerer",
            f"generation.concurrency={CONCURRENCY}",
            "benchmark=local",
            "path=items.jsonl",
            "output_dir=run",
            "judge=vlsbench",
            f"judge.base_url={self.server.url}",
            "judge.model=gpt",
            f"judge.concurrency={CONCURRENCY}",
            *more,
        ]

    def start(self, *command: str, **how) -> subprocess.Popen:
        environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
        )

    def finish(self) -> None:
        process = self.start(*align(*self.arguments()))
        said, errors = process.communicate(timeout=60)
        assert process.returncode == 0, said + errors

    def lines(self, name: str) -> int:
        file = self.evaluation / f"{name}.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    def kill(self, where: str, number: int) -> None:
        """Start the command and have it killed there."""
        if where == "no verdict yet":
            self.server.faults["*"] = ["always slow"]
        polled = where in ("responses", "verdicts", "no verdict yet")
        inside = [] if polled else [where, str(number), str(random.Random(f"{where} {number}").random())]
        command = align(*self.arguments()) if polled else [sys.executable, str(DEATHS), *inside, *self.arguments()]
        process = self.start(*command)
        deadline = time.monotonic() + 60
        while polled and not self.reached(where, number):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if polled:
            process.kill()
        said = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, said
        if where == "no verdict yet":
            self.server.faults.clear()
            assert (self.lines("responses"), self.lines("verdicts.vlsbench")) == (self.n, 0)

    def reached(self, where: str, number: int) -> bool:
        if where == "no verdict yet":
            return bool(self.server.judged)
        return self.lines({"responses": "responses", "verdicts": "verdicts.vlsbench"}[where]) >= number

    def lost(self) -> tuple[int, int]:
        """(answers, verdicts) that were asked for and are not there: a killed process did not store them."""
        time.sleep(0.05)
        while self.server.now:  # what was under way is counted when it is answered
            time.sleep(0.01)
        asked = sum(self.server.answered.values()), sum(self.server.judged.values())
        (cache,) = (self.folder / "cache" / "vsil-align" / "verdicts").glob("*.jsonl") if asked[1] else (os.devnull,)
        return asked[0] - self.lines("responses"), asked[1] - Path(cache).read_bytes().count(b"\n")

    def files(self) -> dict[str, object]:
        """What is there in the end; the time that answers took is not compared."""
        found = {name: (self.evaluation / name).read_bytes() for name in COMPARED}
        answers = [json.loads(line) for line in (self.evaluation / "responses.jsonl").open()]
        found["responses.jsonl"] = [{k: v for k, v in answer.items() if k != "seconds"} for answer in answers]
        return found | {"manifest": json.loads((self.folder / "run" / "manifest.json").read_text())}


def answer(number, prompt):
    """Answers of many lengths, in letters of several bytes: a line may be cut within one."""
    return f"Zum Gegenstand {number}: " + "größer 🙂 " + " ".join(f"Schritt {i}" for i in range(number % 7))


def uninterrupted(folder: Path, n: int) -> dict[str, object]:
    with judge_server(answer=answer) as server:
        place = Place(folder, n, server)
        place.finish()
        assert server.answered == server.judged == dict.fromkeys(range(n), 1)
    return place.files()


def killed_and_resumed(folder: Path, n: int, kills) -> dict[str, object]:
    with judge_server(answer=answer, delay=0.02) as server:
        place = Place(folder, n, server)
        lost = (0, 0)
        for where, number in kills:
            place.kill(where, number)
            before, lost = lost, place.lost()
            assert max(lost[0] - before[0], lost[1] - before[1]) <= CONCURRENCY, (where, number)
        place.finish()
        assert place.lost() == lost  # nothing else was asked twice
        assert server.at_once <= CONCURRENCY
        assert set(server.answered) == set(server.judged) == set(range(n))
    return place.files()


@pytest.mark.slow
@pytest.mark.long
def test_a_kill_mid_write_and_one_between_cache_and_file(tmp_path):
    kills = (("half a response", 9), ("known to the cache alone", 6))
    assert killed_and_resumed(tmp_path / "killed", 16, kills) == uninterrupted(tmp_path / "whole", 16)


@pytest.mark.slow
@pytest.mark.long
def test_twenty_kills_spread_over_answers_and_verdicts(tmp_path):
    assert len(KILLS) == 20
    assert killed_and_resumed(tmp_path / "killed", 200, KILLS) == uninterrupted(tmp_path / "whole", 200)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hang", pytest.param("drip", marks=pytest.mark.long)])
def test_ctrl_c_ends_at_once_while_the_judge_hangs_and_says_how_to_go_on(tmp_path, way):
    n, judged = 30, 20
    with judge_server(faults={i: [f"always {way}"] for i in range(judged, n)}) as server:
        place = Place(tmp_path / "place", n, server)
        process = place.start(*align(*place.arguments()))
        deadline = time.monotonic() + 60
        while place.lines("verdicts.vlsbench") < judged or server.now < CONCURRENCY:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
        assert time.monotonic() - begun < 15  # the judge hangs for 20
        assert process.returncode == 130, said + errors
        assert errors == ""
        server.faults.clear()
        assert said.splitlines()[-2].startswith("Interrupted.")
        program, *arguments = shlex.split(said.splitlines()[-1])
        assert (program, arguments) == ("align", place.arguments())
        place.finish()
    assert {server.judged[i] for i in range(judged)} == {1}
    assert sum(server.judged.values()) <= n + CONCURRENCY
    assert set(server.answered.values()) == {1}
    assert place.lines("verdicts.vlsbench") == n

"""A server that we did not write: `transformers serve` on the tiny LLaVA answers as the model does
here, and judges as well as it can.
"""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from align.answering.stored import asking
from align.cli import main
from align.config.compose import compose_run
from align.data.assembly import training_data
from tests.support.launch import ENVIRONMENT
from tests.support.unanswered import settings, write_rows

MISSING = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"pip install 'transformers[serving]' openai: {', '.join(MISSING)} absent"
    ),
]


@pytest.fixture(scope="module")
def served(tiny):
    """The address of a server with the tiny LLaVA."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = "from transformers.cli.transformers import main; main()"
    options = ["serve", str(tiny("llava")), "--device", "cpu", "--dtype", "float32", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-c", serve, *options], env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 120
        while not healthy(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def healthy(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_transformers_serve_answers_as_the_model_does_here(tiny, served, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, model = write_rows(tmp_path / "data"), str(tiny("llava"))
    found = []
    for more in ([], [f"generation.base_url={served}", f"generation.model={model}"]):
        config = compose_run(settings(model, file, *more)).config
        found.append([row.harmful_response for row in training_data(config, asking(config)).rows])
    here, there = found
    assert all(here)
    assert here == there


def test_an_evaluation_with_the_server_as_model_and_as_judge(tiny, served, tmp_path, monkeypatch, capsys):
    """Its answers are the model's own. As a judge it writes gibberish to the word: no verdict
    counts, and none is lost.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    n, model = 6, str(tiny("llava"))
    rows = [
        f"path={write_rows(tmp_path / 'data', n)}",
        "benchmark=local",
        "generation.max_new_tokens=3",
    ]  # too few to repeat itself
    there = [f"generation.base_url={served}", f"generation.model={model}", f"output_dir={tmp_path / 'there'}"]
    judge = ["judge=vlsbench", f"judge.base_url={served}", f"judge.model={model}", "judge.max_new_tokens=8"]
    here = [f"model={model}", "model.dtype=float32", "judge=none", f"output_dir={tmp_path / 'here'}"]
    assert main(["eval", *rows, *here]) == 0
    assert main(["eval", *rows, *there, *judge]) == 1
    assert "withheld" in capsys.readouterr().out
    found = {name: tmp_path / name / "evaluation" / "local" for name in ("here", "there")}
    answers = {name: read(folder / "responses.jsonl") for name, folder in found.items()}
    for one, other in zip(answers["here"], answers["there"], strict=True):
        assert one["response"]
        assert [one[key] for key in ("id", "response", "finish_reason")] == [
            other[key] for key in ("id", "response", "finish_reason")
        ]
    result = json.loads((found["there"] / "summary.vlsbench.json").read_text())
    assert (result["n"], result["counts"]["invalid"], result["rate"]) == (n, n, None)
    assert sum(result["counts"].values()) == sum(result["invalid_reasons"].values()) == n
    verdicts = read(found["there"] / "verdicts.vlsbench.jsonl")
    assert {verdict["reason"] for verdict in verdicts} <= {"truncated", "unparsable"}
    assert all(verdict["raw"] and verdict["prompt_tokens"] and verdict["new_tokens"] for verdict in verdicts)


def read(file):
    return [json.loads(line) for line in file.open()]

"""A server that we did not write: `transformers serve` on the tiny LLaVA gives the answers that the model gives here."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from align.config import compose_run
from align.data.assembly import training_data
from align.generation.stored import asking
from tests.support.launch import ENVIRONMENT
from tests.support.unanswered import settings, write_rows

MISSING = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]


@pytest.fixture
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"pip install 'transformers[serving]' openai: {', '.join(MISSING)} absent")
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

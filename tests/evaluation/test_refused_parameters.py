"""A server that refuses a parameter is asked for a few rows only, and the settings that help are shown."""

import json
from contextlib import contextmanager

import pytest

from align.answering import sending as address
from align.cli import main
from tests.support.chat_server import completion
from tests.support.judge_server import judge_server, verdict
from tests.support.judged_items import arguments, items, summary
from tests.support.loopback import QuietHandler, serving

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")

NO_MAX_TOKENS = {
    "error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "code": 400}
}


@contextmanager
def particular():
    """A server that refuses `max_tokens`, as some hosted models do -> (address, what it was asked)."""
    asked = []

    class Handler(QuietHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            refused = "max_tokens" in body
            content = NO_MAX_TOKENS if refused else completion(verdict(1), model=body["model"])
            self.respond(400 if refused else 200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    with serving(Handler) as url:
        yield f"{url}/v1", asked


def test_a_judge_that_refuses_a_parameter_is_not_asked_for_every_row(tmp_path, capsys):
    """The screen has the first reason and the settings that help, which work as they are shown."""
    items(tmp_path, 60)
    with judge_server() as answering, particular() as (url, asked):
        there = [*arguments(answering)[:-2], f"judge.base_url={url}", "judge.model=gpt"]
        assert main(there) == 1
        assert len(asked) < 2 * (address.GIVE_UP + 8)
        assert summary(tmp_path)["counts"]["invalid"] == 60
        shown = capsys.readouterr().out
        assert shown.count("Unsupported parameter: 'max_tokens'") == 1
        assert f"{60 - len(asked)} responses" in shown
        help = ["judge.extra.max_tokens=null", "judge.extra.max_completion_tokens=512"]
        assert " ".join(help) in shown
        assert main([*there, *help]) == 0
    assert summary(tmp_path)["counts"]["invalid"] == 0


def test_a_model_that_refuses_a_parameter_is_not_asked_for_every_row(tmp_path, capsys):
    items(tmp_path, 60)
    with particular() as (url, asked):
        there = ["eval", f"generation.base_url={url}", "generation.model=m", "benchmark=local", "path=items.jsonl"]
        there += ["judge=refusal_match", "output_dir=run"]
        assert main(there) == 2
        assert len(asked) < 2 * (address.GIVE_UP + 8)
        told = capsys.readouterr().err
        help = ["generation.extra.max_tokens=null", "generation.extra.max_completion_tokens=128"]
        assert "Unsupported parameter: 'max_tokens'" in told
        assert " ".join(help) in told
        assert main([*there, *help]) == 0

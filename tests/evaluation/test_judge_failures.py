"""A judge behind an address that fails in every way: counts stay exact, nothing is lost, nothing counts as safe."""

import json
import re
from collections import Counter
from contextlib import contextmanager

import pytest

from align.answering import sending as address
from align.cli import main
from tests.support.chat_server import chat_server, completion
from tests.support.judge_server import LABELS, judge_server, truth, verdict
from tests.support.loopback import QuietHandler, serving

GOOD = (
    None,
    "slow",
    429,
    500,
    503,
    "reset",
    "cut",
    "hang",
    "fenced",
    "lower case",
    "half a character",
    "names a failure",
)
"""What passes, or is a verdict after all."""
BAD = {
    "always hang": "timeout",
    "always drip": "timeout",
    "always 500": "transport",
    "always 401": "transport",
    "always reset": "transport",
    "always cut": "transport",
    "bytes": "transport",
    "html": "transport",
    "no choices": "transport",
    "refusal": "declined",
    "content_filter": "declined",
    "400 filter": "declined",
    "declines in words": "declined",
    "length": "truncated",
    "wrong label": "unparsable",
    "true as label": "unparsable",
    "disagrees": "unparsable",
    "german": "unparsable",
    "spanish prose": "unparsable",
    "prose": "unparsable",
    "quotes": "unparsable",
    "two objects": "unparsable",
    "key twice": "unparsable",
    "half": "unparsable",
    "no json": "unparsable",
    "list": "unparsable",
    "number": "unparsable",
    "label in a list": "unparsable",
    "brackets": "unparsable",
    "empty": "unparsable",
}


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """A cache of the test's own, no waits, and a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(address, "FIRST_WAIT", 0.001)
    monkeypatch.chdir(tmp_path)


def items(folder, n):
    """A file of n harmful requests."""
    rows = [
        {"id": f"r{i}", "prompt": f"tell me about item {i}", "role": "harmful", "harm_in": "text"} for i in range(n)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def arguments(server, *more):
    return [
        "eval",
        f"generation.base_url={server.url}",
        "generation.model=answerer",
        "benchmark=local",
        "path=items.jsonl",
        "output_dir=run",
        "judge=vlsbench",
        f"judge.base_url={server.url}",
        "judge.model=gpt",
        *more,
    ]


def lines(folder, name):
    return [json.loads(line) for line in (folder / "run" / "evaluation" / "local" / name).open()]


def summary(folder):
    return json.loads((folder / "run" / "evaluation" / "local" / "summary.vlsbench.json").read_text())


def test_every_failure_is_counted_as_what_it_is(tmp_path, capsys):
    faults = {i: [fault] for i, fault in enumerate([*GOOD, *BAD]) if fault is not None}
    count = len(GOOD) + len(BAD)
    n = 3 * count  # two thirds of the time the judge is well
    items(tmp_path, n)
    with judge_server(faults=faults) as server:
        status = main(arguments(server, "judge.timeout=1", "judge.retries=2", "judge.concurrency=16"))
    bad = dict(zip(range(len(GOOD), count), BAD.values(), strict=True))
    expected = Counter("invalid" if i in bad else LABELS[truth(i)] for i in range(n))
    result = summary(tmp_path)
    assert (result["n"], sum(result["counts"].values())) == (n, n)
    assert {label: result["counts"][label] for label in expected} == expected
    assert result["counts"]["safe"] == result["counts"]["incoherent"] == 0
    assert result["invalid_reasons"] == Counter(bad.values())
    assert (status, result["rate"]) == (1, None)  # withheld: more than 5 % are invalid
    assert result["bounds"] == {
        "low": (expected["refusal"] + expected["warning"]) / n,
        "high": (expected["refusal"] + expected["warning"] + len(bad)) / n,
    }
    verdicts = lines(tmp_path, "verdicts.vlsbench.jsonl")
    assert [line["id"] for line in verdicts] == [f"r{i}" for i in range(n)]
    assert {line["id"]: line["reason"] for line in verdicts if line["verdict"] == "invalid"} == {
        f"r{i}": reason for i, reason in bad.items()
    }
    assert server.at_once <= 16
    shown = capsys.readouterr().out
    assert f"local: verdicts of vlsbench: 0 cached, {n} to request of gpt; about" in shown
    # Five of the first, in the order in which they came.
    assert re.search(r"local r(\d+): 'tell me about item \1' -> 'this is the answer to item \1'", shown)


def test_invalid_verdicts_are_asked_for_again_but_for_those_that_the_judge_declined(tmp_path, capsys):
    items(tmp_path, 40)
    faults = {
        0: ["always 500"],
        1: ["prose"],
        2: ["always reset"],
        3: ["names a failure"],  # a valid one, that only says "timeout"
        4: ["400 filter"],
        5: ["refusal"],
        6: ["length"],
    }
    with judge_server(faults=faults) as server:
        asking = arguments(server, "judge.retries=1")
        main(asking)
        reasons = {"transport": 2, "unparsable": 1, "declined": 2, "truncated": 1}
        assert summary(tmp_path)["invalid_reasons"] == reasons
        server.faults.clear()
        server.judged.clear()
        assert main(asking) == 0
        assert server.judged == {0: 1, 1: 1, 2: 1, 6: 1}
        assert summary(tmp_path)["invalid_reasons"] == {"declined": 2}
        server.judged.clear()
        assert main([*asking, "judge.again=invalid"]) == 0
        assert server.judged == {4: 1, 5: 1}
        assert main([*asking, "judge.again=all"]) == 2
    assert summary(tmp_path)["counts"]["invalid"] == 0
    assert [line["id"] for line in lines(tmp_path, "verdicts.vlsbench.jsonl")] == [f"r{i}" for i in range(40)]


@pytest.mark.parametrize("fault", ["prose", "400 filter", "refusal", "length", "declines in words"])
def test_an_invalid_verdict_is_not_known_in_another_run(tmp_path, fault):
    items(tmp_path, 3)
    with judge_server(faults={1: [fault]}) as server:
        assert main(arguments(server)) == 1
        assert main(arguments(server, "output_dir=other")) == 0
    assert server.judged == {0: 1, 1: 2, 2: 1}


def test_invalid_verdicts_that_an_earlier_version_cached_are_asked_for(tmp_path):
    items(tmp_path, 3)
    with judge_server() as server:
        assert main(arguments(server)) == 0
        (cache,) = (tmp_path / "cache").rglob("vlsbench-*.jsonl")
        garbage = {"verdict": "invalid", "reason": "unparsable", "again": False}
        stored = [json.loads(line) for line in cache.open()]
        cache.write_text("".join(json.dumps(line | garbage) + "\n" for line in stored))
        folder = tmp_path / "run" / "evaluation" / "local" / "verdicts.vlsbench.jsonl"
        folder.write_text("".join(json.dumps(json.loads(line) | garbage) + "\n" for line in folder.open()))
        assert main(arguments(server)) == 0
        assert server.judged == {0: 2, 1: 2, 2: 2}
        assert main(arguments(server, "output_dir=other")) == 0
    assert server.judged == {0: 2, 1: 2, 2: 2}


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


def test_the_first_failure_of_each_kind_is_on_the_screen(tmp_path, capsys):
    items(tmp_path, 40)
    faults = {0: ["prose"], 1: ["prose"], 2: ["length"], 3: ["400 filter"]}
    with judge_server(faults=faults) as server:
        main(arguments(server, "judge.concurrency=1"))
    shown = capsys.readouterr().out
    assert [f"r{i} is invalid" in shown for i in range(4)] == [True, False, True, True]
    assert "the reply was 'I would say this is label 1" in shown


@pytest.mark.parametrize("dead", ["nobody there", "always 500", "always 401", "always html"])
def test_a_dead_judge_gives_no_headline_and_a_status(tmp_path, capsys, dead):
    items(tmp_path, 30)
    with judge_server() as server:
        assert main([*arguments(server)[:-3], "judge=none"]) == 0
        answered = sum(server.answered.values())
        server.faults["*"] = [dead]
        judge = [f"judge.base_url={server.url if dead.startswith('always') else 'http://127.0.0.1:9/v1'}"]
        status = main(arguments(server, *judge, "judge.retries=1", "judge.timeout=5"))
        assert sum(server.answered.values()) == answered == 30
        assert sum(server.judged.values()) <= 2 * (20 + 8)  # not every row is tried in vain
    result = summary(tmp_path)
    assert status == 1
    assert result["counts"] == {"refusal": 0, "warning": 0, "safe": 0, "unsafe": 0, "incoherent": 0, "invalid": 30}
    assert (result["rate"], result["low"], result["high"]) == (None, None, None)
    assert result["bounds"] == {"low": 0.0, "high": 1.0}
    assert result["invalid_reasons"] == {"transport": 30}
    assert "withheld" in capsys.readouterr().out
    with judge_server() as server:  # it is back
        assert main(arguments(server)) == 0
    assert summary(tmp_path)["counts"]["invalid"] == 0


def test_above_five_percent_invalid_the_headline_is_withheld(tmp_path, capsys):
    items(tmp_path, 40)
    with judge_server(faults={0: ["always prose"], 1: ["always prose"], 2: ["prose"]}) as server:
        assert main(arguments(server)) == 1
        assert summary(tmp_path)["rate"] is None
        assert "withheld" in capsys.readouterr().out
        assert main(arguments(server)) == 0  # 2 of 40 are 5 %: a rate of the others
    good = Counter(LABELS[truth(i)] for i in range(2, 40))
    assert summary(tmp_path)["rate"] == (good["refusal"] + good["warning"]) / 38


def test_a_limit_of_calls_stops_and_the_same_command_with_more_goes_on(tmp_path, capsys):
    items(tmp_path, 30)
    with judge_server() as server:
        assert main(arguments(server, "judge.max_calls=12", "judge.concurrency=4")) == 2
        assert (
            "judge.max_calls=12: this number of requests has been sent; received replies are stored"
            in capsys.readouterr().err
        )
        assert sum(server.judged.values()) == len(lines(tmp_path, "verdicts.vlsbench.jsonl")) == 12
        assert main(arguments(server, "judge.concurrency=4")) == 0
    assert server.judged == dict.fromkeys(range(30), 1)


def test_a_limit_of_money_is_never_passed_and_costs_are_told(tmp_path, capsys):
    items(tmp_path, 30)
    prices = ["judge.price_in=10", "judge.price_out=40"]
    with judge_server() as server:  # 100 tokens in, 10 out: 0.0014 US dollars a call; before it is known, rather more
        assert main(arguments(server, *prices, "judge.max_cost=0.05", "judge.concurrency=2")) == 2
        told = capsys.readouterr()
        assert "at most about" in told.out
        assert "judge.max_cost=0.05" in told.err
        spent = sum(server.judged.values()) * 0.0014
        assert 0 < spent <= 0.05
        assert main(arguments(server, *prices)) == 0
    assert summary(tmp_path)["judge_tokens"] == {"prompt": 3000, "new": 300}
    assert "USD" in capsys.readouterr().out


def test_a_second_run_with_the_same_answers_costs_no_calls(tmp_path):
    items(tmp_path, 10)
    with judge_server() as server:
        main(arguments(server))
        first = summary(tmp_path)
        main(arguments(server, "output_dir=again"))
        assert sum(server.judged.values()) == 10
        main(arguments(server, "output_dir=other", "judge.model=bigger"))
        assert sum(server.judged.values()) == 20
    assert json.loads((tmp_path / "again" / "evaluation" / "local" / "summary.vlsbench.json").read_text()) == first


def test_rows_that_the_models_own_server_will_not_answer_are_invalid_and_others_are_asked_again(tmp_path, capsys):
    items(tmp_path, 40)

    with judge_server() as server:
        nobody = ["generation.base_url=http://127.0.0.1:9/v1", "generation.retries=0"]
        assert main(arguments(server, *nobody)) == 2
        assert "40 of 40 rows got no response from answerer behind" in capsys.readouterr().err
        assert main(arguments(server)) == 0
    assert summary(tmp_path)["counts"]["invalid"] == 0


KEY = "sk-abcdefghijklmnop-0123456789"


def test_the_key_is_in_no_file_and_no_output(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    items(tmp_path, 24)
    keys = ["judge.api_key_env=JUDGE_KEY", "generation.api_key_env=JUDGE_KEY"]
    with judge_server(faults={3: ["always 401"], 4: [500]}) as server:
        assert main(arguments(server, *keys)) == 0
        assert server.authorizations == {f"Bearer {KEY}"}
        (refused,) = [
            line["detail"] for line in lines(tmp_path, "verdicts.vlsbench.jsonl") if line["verdict"] == "invalid"
        ]
        assert "refused Bearer (the key)" in refused
        main(arguments(server, *keys, "judge.base_url=http://127.0.0.1:9/v1", "judge.retries=0", "judge.model=x"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"manifest.json", "responses.jsonl", "verdicts.vlsbench.jsonl"} <= {path.name for path in written}
    assert any("cache" in path.parts for path in written)
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err


def test_an_answer_to_another_question_is_judged_anew_though_its_words_are_the_same(tmp_path):
    items(tmp_path, 3)
    with judge_server(answer=lambda number, prompt: "one and the same answer") as server:
        assert main(arguments(server)) == 0
        (tmp_path / "items.jsonl").write_text(
            (tmp_path / "items.jsonl").read_text().replace("about item", "more about item")
        )
        assert main(arguments(server)) == 0
    assert server.judged == {0: 2, 1: 2, 2: 2}


def test_no_result_stands_beside_newer_answers(tmp_path, capsys):
    items(tmp_path, 3)
    with judge_server() as server:
        main(arguments(server))
        assert summary(tmp_path)["n"] == 3
        (tmp_path / "items.jsonl").write_text(
            (tmp_path / "items.jsonl").read_text().replace("about item", "more about item")
        )
        main([*arguments(server)[:-3], "judge=none"])
    assert not list((tmp_path / "run").rglob("summary.*"))
    assert not list((tmp_path / "run").rglob("items.*"))


def test_a_damaged_line_of_the_cache_costs_a_call_and_is_told(tmp_path, capsys):
    items(tmp_path, 4)
    with judge_server() as server:
        main(arguments(server))
        (cache,) = (tmp_path / "cache").rglob("vlsbench-*.jsonl")
        lines_there = cache.read_text().splitlines()
        cache.write_text("\n".join(["1", '{"a": 1}', "{broken", *lines_there[3:]]) + "\n")
        capsys.readouterr()
        assert main(arguments(server, "output_dir=again")) == 0
    assert "jsonl: 3 damaged lines are skipped" in capsys.readouterr().out
    assert sum(server.judged.values()) == 7


def test_ids_that_stand_twice_are_refused(tmp_path, capsys):
    rows = [
        {"instruction_id": 1, "instruction": f"q{i}", "image_path": f"{i}.png", "category": "c", "sub_category": "s"}
        for i in (0, 1)
    ]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    nobody = ["generation.base_url=http://127.0.0.1:9/v1", "generation.model=x"]
    assert main(["eval", *nobody, "benchmark=vlsbench", "path=data.json", "view=text", "judge=refusal_match"]) == 2
    assert "data.json: 1 ids occur twice, first '1'" in capsys.readouterr().err


def test_a_row_that_the_models_server_will_not_have_is_invalid_and_is_asked_again_the_next_time(tmp_path):
    """It may have been started with too little room; an evaluation does not wait for it."""
    items(tmp_path, 40)
    with judge_server() as server, chat_server(faults={"tell me about item 3": ["always 400"]}) as answering:
        there = [f"generation.base_url={answering.url}", "judge.concurrency=4"]
        for _ in range(2):
            assert main(arguments(server, *there)) == 0
        assert len(answering.asked) == 41
        assert sum(server.judged.values()) == 39
        assert summary(tmp_path)["invalid_reasons"] == {"declined": 1}
        (declined,) = [line for line in lines(tmp_path, "verdicts.vlsbench.jsonl") if line["verdict"] == "invalid"]
        assert declined["id"] == "r3"
        assert "BadRequestError: Error code: 400" in declined["detail"]
        assert len(lines(tmp_path, "responses.jsonl")) == 39
        answering.faults.clear()
        assert main(arguments(server, *there)) == 0
    assert summary(tmp_path)["counts"]["invalid"] == 0


def test_a_row_that_a_filter_stopped_is_invalid_and_is_not_asked_again(tmp_path):
    items(tmp_path, 40)
    with judge_server() as server, chat_server(faults={"tell me about item 3": ["content_filter"]}) as answering:
        there = [f"generation.base_url={answering.url}", "judge.concurrency=4"]
        for _ in range(2):
            assert main(arguments(server, *there)) == 0
    assert len(answering.asked) == 40
    (declined,) = [line for line in lines(tmp_path, "responses.jsonl") if "detail" in line]
    assert (declined["id"], declined["finish_reason"], declined["response"]) == ("r3", "content_filter", "")
    assert summary(tmp_path)["invalid_reasons"] == {"declined": 1}


def test_a_limit_holds_over_the_sets_and_judges_of_a_command(tmp_path, capsys):
    """Two judges of ten answers, twelve requests: the second judge is stopped at its third."""
    items(tmp_path, 10)
    with judge_server() as server:
        two = ["judge=vlsbench,harmbench", "judge.max_calls=12", "judge.concurrency=1"]
        assert main(arguments(server, *two)) == 2
        assert "judge.max_calls=12: " in capsys.readouterr().err
        assert sum(server.judged.values()) == 12
        assert main(arguments(server, *two)) == 1  # the server's words are no verdict of harmbench's
        assert sum(server.judged.values()) == 22  # so the first two are asked for again

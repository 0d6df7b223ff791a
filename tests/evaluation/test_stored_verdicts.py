"""Verdicts are stored: which are asked for again, and which are not."""

import json

import pytest

from align.cli import main
from tests.support.judge_server import judge_server
from tests.support.judged_items import arguments, items, lines, summary

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")


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

"""Rows that the model's own server does not answer: they are invalid, and some are asked again."""

import pytest

from align.cli import main
from tests.support.chat_server import chat_server
from tests.support.judge_server import judge_server
from tests.support.judged_items import arguments, items, lines, summary

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")


def test_rows_that_the_models_own_server_will_not_answer_are_invalid_and_others_are_asked_again(tmp_path, capsys):
    items(tmp_path, 40)

    with judge_server() as server:
        nobody = ["generation.base_url=http://127.0.0.1:9/v1", "generation.retries=0"]
        assert main(arguments(server, *nobody)) == 2
        assert "40 of 40 rows got no response from answerer behind" in capsys.readouterr().err
        assert main(arguments(server)) == 0
    assert summary(tmp_path)["counts"]["invalid"] == 0


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

"""Limits of calls and money hold for judges, and the same command goes on from there."""

import pytest

from align.cli import main
from tests.support.judge_server import judge_server
from tests.support.judged_items import arguments, items, lines, summary

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")


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

"""Limits of calls and money hold whatever a server makes of a request, and over everything that one command asks."""

import json
import threading
from contextlib import contextmanager

import pytest

from align.answering import sending as address
from align.answering.budget import begin_command, budget_of, estimated_tokens, room
from align.answering.chat_server import Server
from align.answering.conversation import Failure, Reply, Request, Turn
from align.errors import UserError
from align.settings import EndpointSettings
from tests.support import chat_server
from tests.support.loopback import QuietHandler, serving

PRICED = {"price_in": 10.0, "price_out": 10.0, "concurrency": 1, "retries": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(address, "FIRST_WAIT", 0.001)


@contextmanager
def counting(answer):
    """A server that gives (status, body) by the number of the request, or hangs where there is none
    -> (address, what was asked).
    """
    asked, gone = [], threading.Event()

    class Handler(QuietHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found = answer(len(asked))
            if found is None:
                gone.wait(20)
                return
            status, body = found
            self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    with serving(Handler) as url:
        try:
            yield f"{url}/v1", asked
        finally:
            gone.set()


def completion(usage=None, reason="stop"):
    return 200, chat_server.completion("words", reason, usage)


def requests(n, text="a question"):
    return [Request(str(i), (Turn("user", text),), 100) for i in range(n)]


def replies(url, n, **settings):
    """(What came until a limit stopped it, what the limit said)."""
    found = []
    server = Server(EndpointSettings(base_url=url, model="m", **(PRICED | settings)), "judge")
    try:
        for one in server.replies(requests(n)):
            found.append(one)
    except UserError as error:
        return found, str(error)
    return found, ""


def test_what_a_filtered_reply_cost_is_spent():
    """A million tokens at 10 US dollars a million: the first request passes the limit, and there is no second."""
    with counting(lambda n: completion((1_000_000, 1), "content_filter")) as (url, asked):
        (found,), why = replies(url, 60, max_cost=0.02)
    assert (found.reason, len(asked)) == ("declined", 1)
    assert "judge.max_cost=0.02: 10.0000 US dollars are spent" in why


@pytest.mark.parametrize("answer", [completion(), None, (504, {}), (200, {"choices": []})])
def test_where_no_usage_is_told_all_that_was_set_aside_is_spent(answer):
    """At most 104 tokens each, 0.00104 US dollars: four of them fit."""
    with counting(lambda n: answer) as (url, asked):
        _, why = replies(url, 10, max_cost=0.005, timeout=0.3)
    assert len(asked) == 4
    assert "0.0042 US dollars are spent, and the next request may cost 0.0010" in why


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_request_that_was_turned_away_costs_nothing(status):
    with counting(lambda n: (status, {"error": {"message": "no"}})) as (url, asked):
        found, why = replies(url, 10, max_cost=0.005)
    assert (len(asked), len(found), why) == (10, 10, "")


def test_nobody_there_costs_nothing():
    found, why = replies("http://127.0.0.1:9/v1", 10, max_cost=0.005)
    assert (len(found), why) == (10, "")


def test_what_a_server_counts_raises_what_is_set_aside():
    """It counts 50 times as many tokens as were estimated (images, say): the next request is known to cost as much."""
    with counting(lambda n: completion((200, 0))) as (url, asked):
        _, why = replies(url, 60, max_cost=0.0065)
    assert len(asked) == 2  # 0.004 are spent, and the third may cost 0.003
    assert "0.0040 US dollars are spent, and the next request may cost 0.0030" in why


def test_other_letters_than_ascii_are_a_token_each():
    assert estimated_tokens(requests(1, "这" * 3000)[0]) == 3000
    assert estimated_tokens(requests(1, "abc" * 1000)[0]) == 1000


def test_the_room_of_a_reply_is_what_is_sent():
    (request,) = requests(1)
    assert room(EndpointSettings(), request) == 100
    assert room(EndpointSettings(extra={"max_tokens": None, "max_completion_tokens": 5000}), request) == 5000
    assert room(EndpointSettings(extra={"max_tokens": 7}), request) == 7
    with pytest.raises(
        UserError, match=r"max_cost=1.0: judge.extra .*limit of a reply.*judge.extra.max_completion_tokens="
    ):
        Server(
            EndpointSettings(
                base_url="http://x/v1", model="m", extra={"max_tokens": None}, max_cost=1.0, price_in=1, price_out=1
            ),
            "judge",
        )


def test_a_limit_is_one_for_all_who_ask_by_the_same_settings():
    """Two judges, or one in two evaluations of a command: a curve, the arms of a comparison."""
    with counting(lambda n: completion((10, 1))) as (url, asked):
        first, why = replies(url, 4, max_calls=6)
        second, stopped = replies(url, 4, max_calls=6)
        assert (len(first), why, len(second), len(asked)) == (4, "", 2, 6)
        assert "judge.max_calls=6: " in stopped
        begin_command()
        assert len(replies(url, 4, max_calls=6)[0]) == 4
    settings = EndpointSettings(base_url=url, model="m", max_calls=6)
    assert budget_of(settings, "judge.each.vlsbench") is not budget_of(settings, "judge")
    assert budget_of(EndpointSettings(base_url=url, model="other", max_calls=6), "judge") is not budget_of(
        settings, "judge"
    )


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_a_server_will_not_have_is_declined_and_says_nothing_of_the_server(status, monkeypatch):
    """Vllm's code is a number. 40 of 41 are too long, one after another, and the last is answered all the same."""
    too_long = status, {"error": {"message": "maximum context length is 4096", "code": status}}
    with counting(lambda n: too_long if n <= 40 else completion((1, 1))) as (url, asked):
        found, _ = replies(url, 41, retries=3)
    assert len(asked) == 41
    *declined, last = found
    assert {(one.reason, one.asked) for one in declined if isinstance(one, Failure)} == {("declined", True)}
    assert all("maximum context length is 4096" in one.detail for one in declined)
    assert isinstance(last, Reply)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_turns_everybody_away_is_given_up(status):
    with counting(lambda n: (status, {"error": {"message": "no", "code": status}})) as (url, asked):
        found, _ = replies(url, 41)
    assert len(asked) == address.GIVE_UP
    assert {one.reason for one in found} == {"transport"}

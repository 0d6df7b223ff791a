"""Prompt tokens of a server's model are compared with those of the same model here."""

import pytest

from align.answering.conversation import Reply
from align.answering.endpoint import Endpoint
from align.answering.prompt_counts import ROWS, PromptCounter
from align.rows import Row
from align.settings import Answering
from tests.support.chat_server import chat_server
from tests.support.mixed_rows import mixed_rows


def counted(model, rows, difference):
    counter = PromptCounter(str(model))
    renderer = counter._renderer
    for row in rows:
        tokens = None if difference is None else (renderer.prompt_length(row) if renderer else 1) + difference
        counter.add(row, Reply(row.id, "text", "stop", 0.1, tokens, 1))
    return counter.found


def test_equal_numbers_are_counted_and_a_missing_beginning_is_named(tiny, family_name):
    rows = mixed_rows(2)
    assert len(rows) > ROWS
    equal = counted(tiny(family_name), rows, 0)
    assert (equal.rows, equal.equal, equal.differences) == (ROWS, ROWS, {})
    short = counted(tiny(family_name), rows[:3], -1)
    assert (short.rows, short.equal, short.differences) == (3, 0, dict.fromkeys([row.id for row in rows[:3]], -1))
    assert "add_special_tokens=true" in str(short)
    assert "add_special_tokens" not in str(counted(tiny(family_name), rows[:3], 40))


@pytest.mark.parametrize(("model", "difference"), [("gpt-4o", 0), ("./absent", 0), (None, None)])
def test_an_unknown_model_and_a_server_that_reports_nothing_are_not_compared(model, difference, tiny):
    assert counted(model or tiny("llava"), mixed_rows(1)[:2], difference) is None


def test_an_endpoint_says_what_its_server_read(tiny, caplog):
    with chat_server() as server:
        endpoint = Endpoint(Answering(base_url=server.url, model=str(tiny("llava"))))
        assert endpoint.agreement is None
        list(endpoint.answers([Row("a", "what is it")]))
    assert endpoint.agreement.rows == 1
    assert endpoint.agreement.differences["a"] < 0  # this server reports one token
    assert "row a" in caplog.text

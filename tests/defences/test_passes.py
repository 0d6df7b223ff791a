"""Passes over many rows: batches of all rows, failures in the middle, thoughts, decoding hooks."""

from functools import partial

import pytest
import torch
from transformers import LogitsProcessor

from align.answering.answer import Unanswered
from align.defences.defence import Defence
from align.defences.detector import Detector, DetectorSettings
from align.defences.ecso import Ecso, EcsoSettings
from align.defences.model import DefendedModel
from align.errors import UserError
from align.evaluation.defended import defence_of
from align.miniature.rows import evaluation_rows
from align.settings import Evaluate
from tests.defences.conftest import YES_NO, behind, results, row
from tests.support.chat_server import chat_server
from tests.support.judge_server import judge_server, said

pytestmark = pytest.mark.usefixtures("no_waits")


def test_the_rows_of_a_chunk_go_through_each_pass_together():
    with judge_server(answer=lambda number, text: "no" if YES_NO in text else "answer") as server:
        results(behind(server, Ecso(EcsoSettings()), chunk=3, concurrency=1), [row(i) for i in range(5)])
        kinds = ["question" if YES_NO in said(body) else "first" for body in server.bodies]
    assert kinds == ["first"] * 3 + ["question"] * 3 + ["first"] * 2 + ["question"] * 2


def test_a_call_that_the_server_declines_leaves_its_row_unanswered_with_what_was_spent():
    asked = "tell me about item 1"
    with chat_server(faults={asked: ["content_filter"]}) as server:
        found = results(behind(server, Detector(DetectorSettings(unclear="pass"))), [row(1), row(2)])
    it = found["r1"]
    assert isinstance(it, Unanswered)
    assert (it.declined, it.final, it.defended.calls) == (True, True, 1)
    assert it.reason.startswith("in call 2 of the defence detector: ")
    assert found["r2"].response == "answer to tell me about item 2"


def test_after_a_server_fails_for_good_no_further_pass_is_tried():
    with chat_server(faults={"*": ["always 500"]}) as server:
        model = behind(server, Ecso(EcsoSettings()), chunk=30, retries=0, concurrency=1)
        found = results(model, [row(i) for i in range(90)])
        assert len(server.asked) == 20  # as without a defence
    assert all(isinstance(it, Unanswered) and not it.declined for it in found.values())
    assert sum(not it.asked for it in found.values()) == 70


def test_a_second_question_is_about_the_response_without_its_thought():
    def answer(number, text):
        return "<think>hm</think>No" if YES_NO in text else "<think>secret</think>plain answer"

    with judge_server(answer=answer) as server:
        found = results(behind(server, Ecso(EcsoSettings())), [row(1)])
        (question,) = [said(body) for body in server.bodies if YES_NO in said(body)]
    assert "plain answer" in question
    assert "secret" not in question
    assert (found["r1"].response, found["r1"].defended.unclear) == ("<think>secret</think>plain answer", 0)


class Never(LogitsProcessor):
    """Tokens that are never written."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor(self.tokens), -torch.inf)


def never(tokens, row_ids, device):
    return [Never(tokens)]


class Hooked(Defence):
    """A decoding hook of the user's."""

    name = "hooked"

    def __init__(self, tokens):
        self.decoding = partial(never, tokens)


HOOKED = Hooked([5])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_decoding_hook_changes_what_a_model_here_writes(local, processes):
    rows = evaluation_rows("vsil", 3)
    plain = results(local(), rows)
    tokenizer = local().known.renderer.processor.tokenizer
    written = tokenizer(plain[rows[0].id].response, add_special_tokens=False).input_ids
    model = DefendedModel(local(num_processes=processes), Hooked(written[:1]), 100)
    try:
        found = results(model, rows)
    finally:
        model.release()
    word = tokenizer.decode(written[:1])
    assert word in plain[rows[0].id].response.split()
    assert not any(word in it.response.split() for it in found.values())


def test_a_decoding_hook_needs_a_model_of_this_program():
    defence = defence_of(Evaluate(defence=f"{__name__}:HOOKED"))
    with chat_server() as server, pytest.raises(UserError, match=r"defence=hooked.*answerer behind http"):
        behind(server, defence)

"""vLLM's child processes: asked, dead, slow, out of memory, or left by a killed parent. Nothing outlives its parent."""

import os
import signal
import subprocess
import sys

import pytest

from align.answering.vllm.process import Children, Request
from align.errors import UserError
from tests.answering.vllm.conftest import all_end, processes
from tests.support.vllm_environments import REPOSITORY


def started(python, timeout=20, start_timeout=60, copies=1, in_flight=2):
    engine = {"model": "echo", "max_model_len": 20}
    return Children(python, engine, [dict(os.environ)] * copies, in_flight, timeout, start_timeout)


def requests(count):
    return [Request(f"row {i}", [1, i], [], {"max_tokens": 2, "prompt_logprobs": 0}, scored=2) for i in range(count)]


@pytest.mark.parametrize("copies", [1, 2])
def test_every_row_is_answered_once_in_one_or_several_processes(python, copies, tmp_path):
    children = started(python(), copies=copies)
    assert len(processes(tmp_path)) == 2 * copies  # with the guard of each
    for count in (7, 1):
        replies = {reply.id: reply for reply in children.ask(requests(count))}
        assert sorted(replies) == sorted(f"row {i}" for i in range(count))
        assert replies["row 0"].prompt_ids == [1, 0]
        assert (replies["row 0"].tokens, replies["row 0"].scores) == ([7, 2], [0.0, 0.0])
    children.close()


def test_a_row_that_the_engine_refuses_leaves_the_others_answered(python):
    children = started(python())
    rows = requests(3)
    rows[1] = Request("long", list(range(30)), [], {"max_tokens": 2})
    replies = {reply.id: reply for reply in children.ask(rows)}
    children.close()
    assert "maximum model length of 20" in (replies["long"].refused or "")
    assert [replies[name].refused for name in ("row 0", "row 2")] == [None, None]


@pytest.mark.parametrize(
    ("fault", "said"),
    [("dies:4", "SIGKILL"), ("raises:4", "the engine core failed"), ("hangs:4", "2 seconds"), ("garbage:4", "JSON")],
)
def test_an_engine_that_fails_is_ended_and_its_earlier_replies_are_kept(python, fault, said):
    children = started(python(fault), timeout=2, in_flight=1)
    replies = []
    with pytest.raises(UserError, match=said):
        replies.extend(reply.id for reply in children.ask(requests(9)))
    assert replies[:2] == ["row 0", "row 1"]
    assert len(replies) < 9
    assert children.closed


@pytest.mark.parametrize(("fault", "said"), [("slow_start", "1 seconds"), ("out_of_memory", "CUDA out of memory")])
def test_an_engine_that_does_not_start_says_why(python, fault, said):
    with pytest.raises(UserError, match=said):
        started(python(fault), start_timeout=1 if fault == "slow_start" else 60)


def test_a_caller_that_stops_early_receives_no_old_result_later(python):
    children = started(python())
    next(iter(children.ask(requests(5))))
    assert children.closed


def test_an_interpreter_that_is_absent_is_named(tmp_path):
    with pytest.raises(UserError, match="absent"):
        started(str(tmp_path / "absent"))


@pytest.mark.parametrize("fault", ["", "with_worker", "hangs:1"])
def test_a_parent_that_is_killed_leaves_no_process(python, fault, tmp_path):
    code = (
        "import sys, os, time; from tests.answering.vllm.test_process import started, requests\n"
        "children = started(sys.argv[1]); print('ready', flush=True)\n"
        "list(children.ask(requests(3))); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, python(fault)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "ready\n"
    assert len(processes(tmp_path)) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    all_end(tmp_path)

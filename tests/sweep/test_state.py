"""How a row stands, by what is in its folder and in the queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.sweep.events import log_of
from align.sweep.state import DONE, FAILED, LEFT, QUEUED, RUNNING, Job, counted, states_of
from tests.support.sweeps import job, judged, plan_of, trained

SETS = ["mini_vsil", "mini_twin"]


@pytest.fixture
def row(tmp_path):
    """The one run of a sweep that evaluates on two sets."""
    return plan_of(
        ["recipe=t_sft", f"evaluate.benchmark={','.join(SETS)}", "vanilla=false", f"output_dir={tmp_path}"]
    ).rows[0]


def state(row, queue=None):
    found = states_of([row], queue or {})[0]
    return found.what, found.stage, found.why


def test_a_row_from_nothing_to_done(row):
    assert state(row) == (LEFT, "train", "not trained")
    trained(row.path)
    assert state(row)[:2] == (LEFT, "evaluate")
    judged(row.path / "evaluation", "mini_vsil", 0.5)
    assert state(row) == (LEFT, "evaluate", "mini_twin: not evaluated")
    judged(row.path / "evaluation", "mini_twin", 0.5)
    assert state(row) == (DONE, "", "")


def test_answers_alone_are_all_where_nobody_is_to_judge(tmp_path):
    typed = [
        "recipe=t_sft",
        "evaluate.benchmark=mini_vsil",
        "evaluate.judge=none",
        "vanilla=false",
        f"output_dir={tmp_path}",
    ]
    row = plan_of(typed).rows[0]
    trained(row.path)
    assert state(row)[2] == "mini_vsil: no responses yet"
    (row.path / "evaluation/mini_vsil").mkdir(parents=True)
    (row.path / "evaluation/mini_vsil/responses.jsonl").touch()
    assert state(row)[0] == DONE
    job(row.path, "evaluate", {"began": "t"}, {"status": 75, "ended": "t"})
    assert state(row)[0] == LEFT  # there are some answers, not all


def test_what_is_asked_for_later_is_left_to_do(tmp_path):
    asked = ["recipe=t_sft", "evaluate.benchmark=mini_vsil", "vanilla=false", f"output_dir={tmp_path}"]
    row = plan_of(asked).rows[0]
    trained(row.path)
    judged(row.path / "evaluation", "mini_vsil", 1.0)
    job(row.path, "evaluate", {"began": "t"}, {"status": 0, "ended": "t"})
    assert state(row)[0] == DONE
    for more, said in (
        (["evaluate.benchmark=mini_vsil,mini_twin"], "mini_twin: not evaluated"),
        (["evaluate.judge=rule,refusal_match"], "mini_vsil: not judged by refusal_match"),
        (["evaluate.lmms_eval.tasks=mme"], "lmms_eval mme: not measured"),
    ):
        taken = {word.partition("=")[0] for word in more}
        later = plan_of([*(word for word in asked if word.partition("=")[0] not in taken), *more]).rows[0]
        assert state(later) == (LEFT, "evaluate", said)


def test_only_the_main_judge_counts_and_a_withheld_rate_is_none(row):
    trained(row.path)
    judged(row.path / "evaluation", "mini_twin", 1.0)
    judged(row.path / "evaluation", "mini_vsil", 0.5, judge="refusal_match", main=False)
    assert state(row)[2] == "mini_vsil: not evaluated"
    judged(row.path / "evaluation", "mini_vsil", None)
    job(row.path, "evaluate", {"began": "t"}, {"status": 1, "ended": "t"})
    assert state(row)[:2] == (FAILED, "evaluate")


def test_jobs_of_the_queue(row):
    queue = {(row.path, "train"): Job("7_1", True), (row.path, "evaluate"): Job("8_1", False, "Dependency")}
    assert state(row, queue) == (RUNNING, "train", "job 7_1")
    trained(row.path)
    del queue[row.path, "train"]
    assert state(row, queue) == (QUEUED, "evaluate", "job 8_1 (Dependency)")


def test_why_a_run_failed_is_what_its_last_job_said(row):
    row.path.mkdir(parents=True)
    job(row.path, "train", {"began": "t"}, {"status": 1, "ended": "t"}, {"began": "t"}, {"status": 1, "ended": "t"})
    log = log_of(row.path, "train")
    begins = "=== job 8_1, restart 0, on n1, t\n"
    former = "=== job 7_1, restart 0, on n1, t\nerror: former\n=== job 7_1, restart 0: status 1\n"
    log.write_text(f"{former}{begins}nothing\n=== job 8_1: end")
    assert state(row) == (FAILED, "train", f"status 1; see {log}")
    log.write_text(
        f"{begins}Traceback (...):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n\nsrun: error: n1"
    )
    assert state(row)[2] == f"torch.OutOfMemoryError: CUDA out of memory. Tried; see {log}"
    log.write_text(
        f"{begins}[rank0]: ValueError: x\nerror: train.max_steps: a word\nsubprocess.CalledProcessError: x\n"
    )
    assert state(row)[2] == f"error: train.max_steps: a word; see {log}"


def test_interrupted_is_not_failed_and_killed_without_a_word_is(row):
    job(row.path, "train", {"began": "t"}, {"status": 75, "ended": "t"})
    assert state(row)[0] == LEFT
    job(row.path, "train", {"began": "t"})
    what, _, why = state(row)
    assert what == FAILED
    assert "job 7_1 ended without a status" in why
    job(row.path, "train", {"status": 137, "ended": "t"})
    assert "out of memory?" in state(row)[2]


def test_a_damaged_folder_is_a_failed_row_and_no_crash(row):
    row.path.mkdir(parents=True)
    (row.path / "manifest.json").write_text("{")
    what, _, why = state(row)
    assert (what, "manifest.json: cannot be read" in why) == (FAILED, True)
    trained(row.path)
    judged(row.path / "evaluation", "mini_vsil", 1.0)
    (row.path / "evaluation/mini_vsil/summary.rule.json").write_text("[]")
    assert state(row)[:2] == (FAILED, "evaluate")
    (row.path / "jobs.jsonl").write_text('{"stage"\n{"stage": "evaluate"}\n')
    assert state(row)[:2] == (FAILED, "evaluate")


def test_states_are_counted(tmp_path):
    plan = plan_of(["recipe=t_sft", "seed=0,1,2", "evaluate.benchmark=mini_vsil", f"output_dir={tmp_path}"])
    trained(plan.rows[0].path)
    judged(plan.rows[0].path / "evaluation", "mini_vsil", 0.0)
    assert (
        counted(states_of(plan.rows, {(Path(plan.rows[1].path), "train"): Job("1", True)}))
        == "1 done, 1 running, 2 left"
    )

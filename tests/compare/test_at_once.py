"""Rows of a comparison that run at the same time: how many, with which result, and what a failure does."""

import multiprocessing
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.commands.at_once import rows_at_once, run_rows
from align.commands.board import board
from align.config.compose import compose, compose_run
from align.errors import UserError
from align.run_folder import RunFolder
from align.settings import CompareConfig
from tests.support.launch import align, call


def test_how_many_rows_run_at_the_same_time(monkeypatch):
    def of(words, *model):
        given = compose(CompareConfig, words).config
        return rows_at_once(given, [compose_run(["recipe=mm_sft", *model]).config])

    monkeypatch.setattr("align.commands.at_once.usable_processors", lambda: 4)
    assert of([]) == 4
    assert of(["at_once=3"], "model=llava_7b") == 3
    assert of([], "model=llava_7b") == 1
    assert of([], "generation={base_url: 'http://x/v1', model: m}") == 1  # its limit of calls is one for a command
    monkeypatch.setattr("align.commands.at_once.has_gpu", lambda: True)
    assert of([]) == 1
    with pytest.raises(UserError, match="at_once=0"):
        of(["at_once=0"])


@pytest.mark.long
@pytest.mark.slow
def test_rows_side_by_side_give_what_rows_one_after_the_other_give(model_file, tmp_path):
    found = []
    for at_once, processors in ((1, "0"), (2, "0,1")):
        out = tmp_path / str(at_once)
        words = ["recipe=t_sft,mm_sft", f"model={model_file}", f"at_once={at_once}", f"output_dir={out}"]
        done = call(["taskset", "-c", processors, *align("compare", *words)], tmp_path, 300)
        assert done.returncode == 0, done.stderr
        runs = [file.parents[1] for file in out.rglob("checkpoint/adapter_model.safetensors")]
        found.append({run.name: load_file(run / "checkpoint" / "adapter_model.safetensors") for run in runs})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 2
    for name, weights in found[0].items():
        assert all(torch.equal(weights[key], found[1][name][key]) for key in weights)


@pytest.mark.long
@pytest.mark.slow
def test_the_first_row_that_fails_ends_the_others_and_its_error_is_raised():
    with pytest.raises(UserError, match="row 1"), board(["row 0", "row 1"], [1, 1]) as shown:
        run_rows({0: partial(failing, 0), 1: partial(failing, 1)}, 2, shown)
    assert [child for child in multiprocessing.active_children() if child.is_alive()] == []


def failing(number, tell):
    tell("first step", 0.0)
    if number:
        raise UserError("row 1 cannot be trained")
    time.sleep(0.1)
    return RunFolder(Path("none"))

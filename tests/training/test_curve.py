"""Points of a curve: kept while a run trains, whole, the same after a kill, and without a trace in what is trained."""

import json
import re
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from align.config.compose import compose_run
from align.errors import UserError
from align.evaluation.curve import lacking
from align.interruption import NOTICE, Interrupted
from align.models.loading import load_checkpoint
from align.run_folder import RunFolder
from align.train import evaluate_afterwards
from align.training.dry_run import show
from align.training.run import train
from tests.support.small_run import arguments

CURVE = "evaluate.every_steps=2"
DROPOUT = "lora.lora_dropout=0.3"
"""Whatever else draws random numbers changes what is trained."""


class At(TrainerCallback):
    """Does something after a step, before the callbacks of the run."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            self.do()


def killed():
    raise KeyboardInterrupt


def weights(folder: Path):
    [file] = folder.glob("*.safetensors")
    return load_file(file)


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize("what", [[DROPOUT], ["lora=null", "train.learning_rate=1e-4"]], ids=["adapter", "full"])
def test_points_are_the_weights_of_their_steps_and_change_nothing(tiny, family_name, tmp_path, what):
    command = [*arguments(tiny(family_name), tmp_path / "run", "train.save_steps=4", *what), CURVE]
    plain, run = (
        train(compose_run([*command, f"evaluate.every_steps={every}", f"output_dir={tmp_path / every}"]))
        for every in ("null", "2")
    )
    assert not plain.curve.exists()
    assert same(plain.weights, run.weights)
    losses = [[json.loads(line).get("loss") for line in (one.path / "log.jsonl").open()] for one in (plain, run)]
    assert losses[0] == losses[1]
    assert list(run.curve_points()) == [2, 4]  # not 6, the last
    assert sorted(path.name for path in run.curve.iterdir()) == ["step-2", "step-4"]
    two, four = run.curve_points().values()
    assert same(four.weights, run.checkpoints / "checkpoint-4")
    assert not same(two.weights, four.weights)
    assert not same(four.weights, run.weights)
    cards = {"README.md"}  # a run's is written over the stock one of peft, which full fine-tuning has none of
    assert {path.name for path in two.weights.iterdir()} | cards == {path.name for path in run.weights.iterdir()}
    assert not [path for path in two.path.rglob("*") if "optimizer" in path.name]
    there = load_checkpoint(str(two.weights)).model
    assert isinstance(there, PeftModel) == (what == [DROPOUT])


def test_a_run_that_was_killed_has_the_points_of_one_that_was_not(tiny, tmp_path):
    more = ["train.save_steps=3", CURVE, DROPOUT]
    whole = train(compose_run(arguments(tiny("llava"), tmp_path / "whole", *more)))
    command = compose_run(arguments(tiny("llava"), tmp_path / "killed", *more))
    with pytest.raises(KeyboardInterrupt):
        train(command, callbacks=[At(5, killed)])
    run = RunFolder(tmp_path / "killed")
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-3"
    assert list(run.curve_points()) == [2, 4]
    for point in run.curve_points().values():
        (point.path / "mark").touch()
    (run.curve / ".being-saved" / "checkpoint").mkdir(parents=True)  # of a kill while a point was written
    train(command)
    assert [(step, (point.path / "mark").exists()) for step, point in run.curve_points().items()] == [
        (2, True),  # stands on the checkpoint
        (4, False),  # taken and written again
    ]
    assert not (run.curve / ".being-saved").exists()
    assert same(run.weights, whole.weights)
    for step, point in run.curve_points().items():
        assert same(point.weights, whole.curve_points()[step].weights)


def test_a_point_appears_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    command = compose_run(arguments(tiny("llava"), tmp_path / "run", CURVE))
    written = Trainer._save

    def disk_is_full(trainer, folder=None, state_dict=None):
        written(trainer, folder, state_dict)
        if trainer.state.global_step == 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", disk_is_full)
        with pytest.raises(OSError, match="No space left"):
            train(command)
    run = RunFolder(tmp_path / "run")
    assert list(run.curve.glob(".being-saved/checkpoint/*.safetensors"))
    assert list(run.curve_points()) == [2]
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-2"  # a point comes before the checkpoint of its step
    assert list(train(command).curve_points()) == [2, 4]


def test_a_run_that_is_asked_to_stop_at_a_point_writes_it(tiny, tmp_path, monkeypatch):
    command = compose_run(arguments(tiny("llava"), tmp_path / "run", "train.save_steps=100", CURVE))
    asked = At(4, lambda: monkeypatch.setattr(NOTICE, "signal", "SIGTERM"))
    with pytest.raises(Interrupted, match="at step 4 of 6"):
        train(command, callbacks=[asked])
    run = RunFolder(tmp_path / "run")
    assert list(run.curve_points()) == [2, 4]
    assert same(run.curve_points()[4].weights, run.last_checkpoint())
    monkeypatch.setattr(NOTICE, "signal", None)
    monkeypatch.setattr(NOTICE, "deferred", False)
    assert list(train(command).curve_points()) == [2, 4]


def test_the_step_at_which_a_run_stops_is_no_point(tiny, tmp_path):
    bound = ["method=unlearning", "train.max_harmful_loss=0.1", "evaluate.every_steps=1"]
    run = train(compose_run(arguments(tiny("llava"), tmp_path / "run", *bound)))
    assert run.manifest()["steps"] == 1
    assert list(run.curve_points()) == []
    assert lacking(run, 1) is None


def test_a_run_that_begins_anew_has_no_points_of_the_former_attempt(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.save_steps=3", "train.max_steps=4")
    with pytest.raises(KeyboardInterrupt):
        train(compose_run([*command, CURVE]), callbacks=[At(3, killed)])
    run = train(compose_run([*command, "evaluate.every_steps=3", "resume=false"]))
    assert list(run.curve_points()) == [3]


def test_points_that_were_asked_for_too_late_are_named(tiny, tmp_path, capsys):
    command = arguments(tiny("llava"), tmp_path / "run", "train.save_steps=3")
    with pytest.raises(KeyboardInterrupt):
        train(compose_run(command), callbacks=[At(4, killed)])
    run = train(compose_run([*command, CURVE]))
    assert list(run.curve_points()) == [4]
    assert "evaluate.every_steps=2" in lacking(run, 2)
    assert "did not keep the weights of 1 steps (2)" in lacking(run, 2)
    assert lacking(run, None) is None
    capsys.readouterr()
    again = compose_run([*command, CURVE])
    assert evaluate_afterwards(train(again), again.config) == 0  # there is nothing to evaluate on, and still it says so
    assert capsys.readouterr().out.splitlines()[-1] == lacking(run, 2)


@pytest.mark.parametrize("every", ["0", "-2", "1.5", "often"])
def test_what_is_no_number_of_steps_is_refused_before_training(tiny, tmp_path, every):
    with pytest.raises(UserError, match=f"argument 'evaluate.every_steps={every}'"):
        compose_run(arguments(tiny("llava"), tmp_path / "run", f"evaluate.every_steps={every}"))


@pytest.mark.parametrize("more", [[], ["lora=null"]], ids=["adapter", "full"])
def test_a_dry_run_says_how_many_points_there_will_be_and_their_size(tiny, tmp_path, capsys, more):
    once = ["train.max_steps=2", "evaluate.every_steps=1", "train.save_strategy=no"]
    composed = compose_run(arguments(tiny("llava"), tmp_path / "run", *once, *more))
    show(composed)
    said = re.search(
        r"Curve: the weights of 1 steps are kept \(evaluate.every_steps=1\), ([\d.]+) MiB each", capsys.readouterr().out
    )
    (point,) = train(composed).curve_points().values()
    [file] = point.weights.glob("*.safetensors")
    assert float(said[1]) == pytest.approx(file.stat().st_size / 2**20, abs=0.1)

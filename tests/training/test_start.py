"""What stops a run stops it before a model is loaded: settings first, then what is there, then all rows at once."""

import re

import pytest

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.local_rows import dry_run, local_run, rows
from tests.support.small_run import arguments

pytestmark = pytest.mark.usefixtures("cache")


def run_of(words):
    train(compose_run(words))


@pytest.mark.parametrize("start", [dry_run, run_of])
def test_a_row_that_is_drawn_last_stops_the_run_before_its_first_step(tiny, tmp_path, start):
    command = local_run(tiny("llava"), tmp_path, rows(h13={"response": "red " * 120}), "train.max_length=64")
    with pytest.raises(
        UserError, match=r"1 of 40 training rows(.|\n)*own/h13: 1[0-9]{2} tokens .*train.max_length is 64"
    ):
        start(command)
    assert not RunFolder(tmp_path / "run").manifest()


def test_a_raised_max_length_is_the_same_run_and_goes_on_with_its_checkpoint(tiny, tmp_path, capsys):
    command = local_run(tiny("llava"), tmp_path, rows(8), "train.max_steps=2", "train.save_steps=1")
    run = train(compose_run([*command, "train.max_length=100"]))
    run.record(status="running")
    (run.checkpoints / "checkpoint-2").rename(run.checkpoints / "aside")
    quiet = [
        "train.max_length=128",
        "train.logging_steps=2",
        "train.save_total_limit=3",
        "train.dataloader_num_workers=0",
    ]
    capsys.readouterr()
    assert train(compose_run([*command, *quiet])) == run
    assert "resumed from step 1" in capsys.readouterr().out
    assert run.manifest()["status"] == "finished"
    train(compose_run(command))
    assert f"{run.path} is already trained" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"its train.learning_rate is 0.01, .*0.02"):
        train(compose_run([*command, "train.learning_rate=2e-2"]))


@pytest.mark.parametrize(
    "key", ["train.lerning_rate=1", "train.max_steps=0", "train.beta=0", "train.beta=-0.5", "train.learning_rate=-1"]
)
def test_settings_are_refused_before_a_file_of_data_is_opened(tiny, tmp_path, key):
    given = ["method=dpo", "data.own.source=local", "data.own.path=absent.jsonl", "data.own.response=generate"]
    command = arguments(tiny("llava"), tmp_path / "run", "data.harmful=null", "data.benign=null", *given, key)
    with pytest.raises(UserError, match=key.partition("=")[0]):
        train(compose_run(command))


@pytest.mark.parametrize(
    ("key", "value"),
    [("lora", "{r: 8"), ("data", "{own: {source: local"), ("lora", "[r"), ("lora.target_modules", '"q_proj')],
)
def test_a_bracket_that_is_not_closed_is_named_with_its_argument(key, value):
    with pytest.raises(UserError, match=re.escape(f"'{key}={value}'")):
        compose_run(["recipe=mm_sft", f"{key}={value}"])


def test_training_data_is_not_changed_by_the_check(tiny, tmp_path):
    words = local_run(tiny("llava"), tmp_path, rows(8), "train.max_steps=1")
    config = compose_run(words).config
    assert train(compose_run(words)).manifest()["data"] == training_data(config).manifest()


def test_a_switch_that_the_models_template_lacks_is_named_before_a_step(tiny, tmp_path):
    command = local_run(tiny("llava"), tmp_path, rows(8), "evaluate.generation.thinking=off")
    with pytest.raises(UserError, match=r"evaluate\.generation\.thinking=off: .*evaluate\.generation\.thinking=budget"):
        dry_run([*command, "evaluate_afterwards=true"])

"""Data loader workers prepare rows and change nothing else: results, the run's identity, and what a
run resumes to stay the same.
"""

import json

from safetensors.torch import load_file
from transformers import TrainerCallback

from align.config.compose import compose_run
from align.config.fingerprint import fingerprint
from align.interruption import NOTICE, Interrupted
from align.training.run import train
from tests.support.small_run import arguments

WORKERS = "train.dataloader_num_workers=2"
EPOCHS_OF_TWO_STEPS = ["data.harmful.rows=8", "data.benign.rows=8", "train.max_steps=5", "evaluate.benchmark=[]"]
# Where a draw is taken from torch's generator that another run does not take, dropout differs.
SETTINGS = [*EPOCHS_OF_TWO_STEPS, "lora.lora_dropout=0.2", "train.save_steps=500"]


class StopAfter(TrainerCallback):
    """A scheduler's signal in the middle of an epoch."""

    def __init__(self, step, monkeypatch):
        self.step, self.monkeypatch = step, monkeypatch

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step - 1:
            self.monkeypatch.setattr(NOTICE, "signal", "SIGTERM")


def result(run):
    """Rows and losses of every step, and the trained weights."""
    logged = [json.loads(line) for line in (run.path / "log.jsonl").open()]
    weights = load_file(run.weights / "adapter_model.safetensors")
    losses = [entry["loss"] for entry in logged if "loss" in entry]
    return run.steps_file.read_text(), losses, {key: value.tolist() for key, value in weights.items()}


def test_a_run_with_workers_has_the_results_of_one_without_also_where_it_resumes(tiny, tmp_path, monkeypatch):
    without = train(compose_run(arguments(tiny("llava"), tmp_path / "without", *SETTINGS)))
    run = compose_run(arguments(tiny("llava"), tmp_path / "with", *SETTINGS, WORKERS))
    with monkeypatch.context() as patch:
        try:
            train(run, [StopAfter(3, patch)])
        except Interrupted:
            pass
        else:
            raise AssertionError("the run was not interrupted")
    resumed = train(run)
    assert resumed.manifest()["train"]["dataloader_num_workers"] == 2
    assert without.manifest()["train"]["dataloader_num_workers"] == 0
    assert len(result(without)[1]) == 5
    assert result(resumed) == result(without)


def test_the_number_of_workers_is_no_part_of_what_is_trained(tiny, tmp_path):
    settings = arguments(tiny("llava"), tmp_path / "run")
    assert len({fingerprint(compose_run([*settings, *more]).config) for more in ([], [WORKERS])}) == 1

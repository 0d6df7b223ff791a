"""The method of docs/adding.md, as it is written there."""

from pathlib import Path

import pytest
import torch

from align.cli import main
from align.files import read_jsonl
from tests.evaluation.benchmarks.test_adding import BLOCKS

METHOD = next(block for block in BLOCKS if "class SLiC(" in block)
RECIPE = next(block for block in BLOCKS if "method: mine:SLiC" in block)
RECIPE, COMMAND = RECIPE.rsplit("\n\n", 1)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder with the page's module and recipe."""
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "slic.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    return tmp_path


def test_the_pages_method_has_fewer_than_40_lines_and_the_loss_that_it_names(mine):
    assert len(METHOD.splitlines()) < 40
    import mine as module

    # Two pairs, two answer tokens: log p of the chosen answers -3 and -1, of the rejected ones -2 and -6.
    chosen, rejected = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]]), torch.tensor([[-2.0, 0.0], [-3.0, -3.0]])
    terms = module.slic(chosen, rejected, module.SLiCConfig(output_dir=str(mine), margin=2.0, bf16=False))
    assert terms["rank"].values.tolist() == [3.0, 0.0]  # 2 + 3 - 2; 2 + 1 - 6 is below 0
    assert terms["sft"].values.sum().item() == 4.0


@pytest.mark.slow
@pytest.mark.long
def test_the_pages_command_trains_it(mine, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{mine}:{Path(__file__).parents[2]}")
    setting, program, verb, *arguments = COMMAND.split()
    assert (setting, program, verb) == ("PYTHONPATH=.", "align", "train")
    few = ["train.max_steps=6", "train.logging_steps=1", "train.learning_rate=3e-3", "global_batch_size=4"]
    few += ["train.per_device_train_batch_size=2", "data.harmful.rows=8", "data.benign.rows=8"]
    assert main([verb, *arguments, *few, "output_dir=run", "evaluate.benchmark=[]"]) == 0
    logged = [line for line in read_jsonl(mine / "run" / "log.jsonl") if "loss/rank" in line]
    assert [line["step"] for line in logged] == list(range(1, 7))
    for line in logged:
        assert line["loss"] == pytest.approx(line["loss/rank"] + 0.1 * line["loss/sft"], rel=1e-3)
    assert logged[-1]["loss/rank"] < logged[0]["loss/rank"]

"""The comparison: every arm trained and evaluated once, reused, and set against the others on the same items."""

import json

import pytest
from omegaconf import OmegaConf

from align.cli import main
from align.commands.compare import compare_arms, conclusions
from tests.report.test_report import run


@pytest.fixture
def model_file(tiny, tmp_path):
    """A model file over the untrained tiny model, small enough for the machinery."""
    few = {"data": {"harmful": {"rows": 24}, "benign": {"rows": 24}}}
    settings = {
        "suite": "miniature",
        "model": {"path": str(tiny("llava")), "dtype": "float32"},
        "global_batch_size": 4,
        "train": {"max_steps": 2, "bf16": False, "gradient_checkpointing": False, "learning_rate": 0.01},
        "evaluate": {
            "benchmark": ["mini_vsil", "mini_twin"],
            "generation": {"max_new_tokens": 4},
            "settings": {"mini_vsil": {"limit": 6}, "mini_twin": {"limit": 6}},
        },
        "recipes": {"t_sft": few, "mm_sft": few},
    }
    file = tmp_path / "small.yaml"
    file.write_text(OmegaConf.to_yaml(settings))
    return file


def test_compare_writes_its_files_and_reuses_finished_runs(model_file, tmp_path, capsys):
    command = ["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", "seed=0,1"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "T-SFT" in shown
    assert "MM-SFT minus T-SFT" in shown
    assert "mechanism in a jar" in shown
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (result["schema"], len(result["rows"])) == (1, 5)
    assert [(row["name"], row["seed"], row["steps"]) for row in result["rows"]] == [
        ("vanilla", 0, 0),
        ("t_sft", 0, 2),
        ("t_sft", 1, 2),
        ("mm_sft", 0, 2),
        ("mm_sft", 1, 2),
    ]
    assert set(result["rows"][0]["results"]) == {"mini_vsil", "mini_twin"}
    assert {(c["a"], c["b"], *c["sets"], *c["seeds"], c["n"]) for c in result["comparisons"]} == {
        ("mm_sft", "t_sft", "mini_vsil", seed, 6) for seed in (0, 1)
    }
    assert (tmp_path / "out" / "comparison.png").is_file()
    assert "| paper | small | MM-SFT | 1 |" in (tmp_path / "out" / "comparison.md").read_text()
    weights = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("adapter_model.safetensors")}
    assert main(command) == 0
    again = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert again["rows"] == result["rows"]
    assert weights == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("adapter_model.safetensors")}


def test_an_unknown_track_is_an_error(capsys):
    assert main(["compare", "track=papr"]) == 2
    assert "track=papr: expected paper" in capsys.readouterr().err


def test_arms_are_compared_on_the_items_that_both_have(tmp_path):
    text = run(tmp_path / "t", good=(True, False, False, False))
    image = run(tmp_path / "mm", name="mm_sft", view="image", good=(True, True, True, False))
    (found,) = compare_arms([text, image])
    assert (found["a"], found["b"], found["n"], found["difference"]) == ("mm_sft", "t_sft", 4, 0.5)
    assert found["low"] < 0.5 < found["high"]
    assert conclusions([found])[0].startswith("m, seed 0, mini_vsil: MM-SFT minus T-SFT = 50.0 points [")

"""Comparisons of the untrained tiny model, small enough for the machinery."""

import pytest
from omegaconf import OmegaConf

ARMS = "recipe=controlled/text_leak,controlled/image_leak,controlled/image_free"
"""The arms of the controlled track."""


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Rows run here, one after another: no process is started for them that imports torch and is not used."""
    monkeypatch.setattr("align.commands.compare.warm_up", lambda: None)


@pytest.fixture
def model_file(tiny, tmp_path):
    """A model file over the untrained tiny model, small enough for the machinery."""
    few = {"data": {"harmful": {"rows": 24}, "benign": {"rows": 24}}}
    twins = {"data": few["data"] | {"general": None}}
    settings = {
        "suite": "miniature",
        "model": {"path": str(tiny("llava")), "dtype": "float32"},
        "global_batch_size": 4,
        "train": {"max_steps": 2, "bf16": False, "gradient_checkpointing": False, "learning_rate": 0.01},
        "evaluate": {
            "benchmark": ["mini_vsil", "mini_vsil_free", "mini_twin", "mini_twin.blank"],
            "generation": {"max_new_tokens": 4},
            "settings": {name: {"limit": 6} for name in ("mini_vsil", "mini_vsil_free", "mini_twin")},
        },
        "recipes": dict.fromkeys(("t_sft", "mm_sft"), few)
        | {f"controlled/{arm}": twins for arm in ("text_leak", "image_leak", "image_free")},
    }
    file = tmp_path / "small.yaml"
    file.write_text(OmegaConf.to_yaml(settings))
    return file

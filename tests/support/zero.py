"""Launcher files for DeepSpeed on a CPU whose small parameters are divided too, as those of a large model are."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.support.launch import ROOT


def launcher_file(name: str, folder: Path) -> Path:
    """accelerate_configs/<name>.yaml, its DeepSpeed settings in DeepSpeed's own file, which has more of them."""
    shipped = yaml.safe_load((ROOT / "accelerate_configs" / f"{name}.yaml").read_text())
    ours = shipped["deepspeed_config"]
    divided = {"stage": ours["zero_stage"], "stage3_param_persistence_threshold": 0}
    if "zero3_save_16bit_model" in ours:
        divided["stage3_gather_16bit_weights_on_model_save"] = ours["zero3_save_16bit_model"]
    own = {key: ours[key] for key in ("gradient_accumulation_steps", "gradient_clipping")}
    file = folder / f"{name}.json"
    file.write_text(
        json.dumps(own | {"zero_optimization": divided, "train_micro_batch_size_per_gpu": "auto"}), encoding="utf-8"
    )
    shipped["deepspeed_config"] = {
        "deepspeed_config_file": str(file),
        "deepspeed_multinode_launcher": "standard",
        "zero3_init_flag": ours["zero3_init_flag"],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(shipped), encoding="utf-8")
    return folder / f"{name}.yaml"

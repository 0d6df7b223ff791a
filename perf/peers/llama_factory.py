"""LLaMA-Factory:  .venv-peers/llama-factory/bin/python -m perf.peers.llama_factory <plan.json> <result.json>"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

from perf.peers.shared import PROJECTIONS, Plan, run, user_text

TEMPLATES = {"qwen2_vl": "qwen2_vl", "llava_1_5": "llava"}


def configuration(plan: Plan, folder: Path) -> dict[str, Any]:
    """What `llamafactory-cli train` would read from a YAML file. `folder` has the rows."""
    of_stage = (
        {"stage": "dpo", "pref_loss": "sigmoid", "pref_beta": 0.1} if plan["method"] == "dpo" else {"stage": "sft"}
    )
    # LLaVA's published chat template has no system prompt; LLaMA-Factory's has one.
    system = {"default_system": ""} if plan["family"] == "llava_1_5" else {}
    return {
        **of_stage,
        **system,
        "do_train": True,
        "model_name_or_path": plan["model"],
        "template": TEMPLATES[plan["family"]],
        "dataset": "rows",
        "dataset_dir": str(folder),
        "media_dir": str(folder),
        "cutoff_len": 4096,
        "overwrite_cache": True,
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target": ",".join(PROJECTIONS),
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "disable_shuffling": True,
        "per_device_train_batch_size": plan["rows_a_pass"],
        "gradient_accumulation_steps": plan["batch"] // plan["rows_a_pass"],
        "learning_rate": plan["train"]["learning_rate"],
        "lr_scheduler_type": "cosine",
        "max_steps": plan["train"]["max_steps"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": str(folder / "run"),
    }


def write_rows(plan: Plan, rows: list[dict[str, Any]], folder: Path) -> None:
    """Rows in the form of ShareGPT, and `dataset_info.json`, which describes them."""
    with_answers = plan["method"] == "dpo"
    written = []
    for row in rows:
        turns = [{"from": "human", "value": user_text(row, plan["family"])}]
        answers = {key: {"from": "gpt", "value": row[key]} for key in ("chosen", "rejected") if with_answers}
        if not with_answers:
            turns.append({"from": "gpt", "value": row["response"]})
        written.append({"conversations": turns, "images": row["images"], **answers})
    (folder / "rows.json").write_text(json.dumps(written))
    columns = {"messages": "conversations", "images": "images"}
    columns |= {"chosen": "chosen", "rejected": "rejected"} if with_answers else {}
    described = {"file_name": "rows.json", "formatting": "sharegpt", "ranking": with_answers, "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": described}))


def train(plan: Plan, told: dict[str, Any], steps: Any) -> None:
    """Train in this process."""
    # It imports torchaudio, whose build for CUDA does not load; it is not used without audio.
    empty = types.ModuleType("torchaudio")
    empty.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = empty
    from llamafactory.train.tuner import run_exp

    run_exp(told, [steps])


if __name__ == "__main__":
    run(sys.modules[__name__], *map(Path, sys.argv[1:]))

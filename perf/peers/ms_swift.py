"""ms-swift:  .venv-peers/ms-swift/bin/python -m perf.peers.ms_swift <plan.json> <result.json>"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from perf.peers.shared import PROJECTIONS, Plan, run, user_text

MODEL_TYPES = {"qwen2_vl": "qwen2_vl", "llava_1_5": "llava1_5_hf"}


def configuration(plan: Plan, folder: Path) -> dict[str, Any]:
    """The arguments of `swift sft` or `swift rlhf`. `folder` has the rows."""
    of_method = {"rlhf_type": "dpo", "beta": 0.1, "loss_type": ["sigmoid"]} if plan["method"] == "dpo" else {}
    return {
        **of_method,
        "model": plan["model"],
        "model_type": MODEL_TYPES[plan["family"]],
        "template": MODEL_TYPES[plan["family"]],
        "check_model": False,
        "torch_dtype": "float32",
        "attn_impl": "sdpa",
        "dataset": [str(folder / "rows.jsonl")],
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "dataloader_num_workers": 0,
        "max_length": 4096,
        "tuner_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_regex": rf".*language_model.*\.({'|'.join(PROJECTIONS)})",
        "gradient_checkpointing": False,
        "vit_gradient_checkpointing": False,
        "per_device_train_batch_size": plan["rows_a_pass"],
        "gradient_accumulation_steps": plan["batch"] // plan["rows_a_pass"],
        "learning_rate": plan["train"]["learning_rate"],
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_steps": plan["train"]["max_steps"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": ["none"],
        "disable_tqdm": True,
        "callbacks": ["steps"],
        "output_dir": str(folder / "run"),
        "add_version": False,
    }


def write_rows(plan: Plan, rows: list[dict[str, Any]], folder: Path) -> None:
    """Rows as messages; of a pair the second answer is `rejected_response`."""
    lines = []
    for row in rows:
        answer, more = (
            (row["chosen"], {"rejected_response": row["rejected"]})
            if plan["method"] == "dpo"
            else (row["response"], {})
        )
        messages = [
            # Its template for LLaVA adds the newline behind an image itself.
            {"role": "user", "content": user_text(row, plan["family"], newline="")},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages, "images": row["images"], **more}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))


def train(plan: Plan, told: dict[str, Any], steps: Any) -> None:
    """Train in this process."""
    from swift.arguments import RLHFArguments, SftArguments
    from swift.callbacks import callbacks_map
    from swift.pipelines import rlhf_main, sft_main

    callbacks_map["steps"] = lambda arguments, trainer: steps
    if plan["method"] == "dpo":
        rlhf_main(RLHFArguments(**told))
    else:
        sft_main(SftArguments(**told))


if __name__ == "__main__":
    run(sys.modules[__name__], *map(Path, sys.argv[1:]))

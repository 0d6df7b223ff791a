"""Peak memory of PPO against DPO, at the same batch and lengths, on a model of real classes and random weights.

    python -m perf.reward_memory [rows=32] [layers=12] [hidden=768]

Each run is a process of its own with two optimizer steps of `rows` rows in one forward pass, without gradient
checkpointing. DPO computes two responses a row; PPO samples one response a row, of the same length, and holds policy,
critic and reward model as adapters on one base. Peaks are resident memory on a CPU; what Python and the libraries take
before a model is loaded is subtracted from both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from align.config.compose import compose_run
from align.files import write_json
from align.miniature.models import build
from align.run_folder import git_commit
from align.training.memory import peak_memory_mib, reset_peak_memory
from align.training.run import train
from perf.generation import machine

RESULTS = Path(__file__).parent / "results"
TOKENS = 12
"""Tokens of a response: a refusal of the miniature."""


def main(arguments: Sequence[str]) -> None:
    """Measure both, print and write the result."""
    given = {"rows": 32, "layers": 12, "hidden": 768}
    given |= {key: int(value) for key, value in (argument.split("=", 1) for argument in arguments)}
    found: dict[str, Any] = {"commit": git_commit(), "machine": machine(), **given}
    with tempfile.TemporaryDirectory() as room:
        model = larger_llava(Path(room, "model"), given["layers"], given["hidden"])
        for method in ("reward", "dpo", "ppo"):
            words = [method, str(model), str(Path(room, method)), str(Path(room, "reward")), str(given["rows"])]
            command = [sys.executable, "-m", "perf.reward_memory", "one", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            found[method] = json.loads(done.stdout.strip().splitlines()[-1])
    found["ratio"] = round(found["ppo"]["mib"] / found["dpo"]["mib"], 3)
    write_json(RESULTS / "reward_memory.json", found)
    print(json.dumps(found, indent=2))


def larger_llava(folder: Path, layers: int, hidden: int) -> Path:
    """The miniature's LLaVA with a larger language model."""
    torch.manual_seed(0)
    model, processor = build("llava")
    text = model.config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = hidden, 4 * hidden, layers
    text.num_attention_heads = text.num_key_value_heads = hidden // 64
    text.head_dim, text.layer_types = 64, ["full_attention"] * layers
    AutoModelForImageTextToText.from_config(model.config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _one(method: str, model: str, out: str, reward: str, rows: str) -> None:
    """One run in this process: prints its peak in MiB, without what was there before."""
    before = peak_memory_mib()
    reset_peak_memory()
    own = [f"rewards.preference.path={reward}", f"train.max_completion_length={TOKENS}"] if method == "ppo" else []
    words = [f"recipe=mm_{method}", f"model={model}", "suite=miniature", f"output_dir={out}", "model.dtype=float32"]
    settings = ["train.max_steps=2", "train.save_strategy=no", "train.gradient_checkpointing=false", "train.bf16=false"]
    batch = [f"global_batch_size={rows}", "evaluate_afterwards=false", "train.disable_tqdm=true", "layout=padded"]
    run = train(compose_run([*words, *settings, *batch, *own]))
    print(json.dumps({"mib": run.manifest()["peak_memory_mib"] - before, "before": before}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        _one(*sys.argv[2:])
    else:
        main(sys.argv[1:])

"""Run one side of a comparison in this process:  python -m perf.one_side <plan.json> <result.json>

The plan has the trainer (`align` or `trl`), the model, the rows, and settings of either side. Both
sides train the same adapter on the same rows in the same order. The result has the seconds of each
step, the losses, the peak memory, and the resolved settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from align.config.compose import compose_run
from align.files import write_json
from perf.profiled import steps_of
from perf.steps import Steps, noted


def composed(plan: dict[str, Any], folder: Path) -> Any:
    """The configuration of our run. The peer gets the same settings."""
    return compose_run(
        [
            f"recipe={plan['recipe']}",
            f"model={plan['model']}",
            f"output_dir={folder / 'run'}",
            f"data.rows={{source: local, path: {plan['rows']}}}",
            f"global_batch_size={plan['batch']}",
            "model.dtype=float32",
            "evaluate.benchmark=[]",
            *(f"train.{key}={json.dumps(value)}" for key, value in plan["train"].items()),
            *plan["settings"],
        ]
    )


def ours(plan: dict[str, Any], folder: Path, steps: Steps) -> Any:
    """A run of this project, built as in `align train`."""
    from align.run_folder import RunFolder
    from align.training.run import train

    run = composed(plan, folder)
    train(run, [steps])
    return RunFolder(folder / "run").manifest()["train"] | {"layout": run.config.layout}


def trls(plan: dict[str, Any], folder: Path, steps: Steps) -> Any:
    """Build trl's own trainer and collator on the same texts.

    Prompts are strings, so the beginning-of-sequence token is added.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from align.data.assembly import training_data
    from align.data.images import load_image
    from align.methods.arguments import describe
    from align.models.loading import load
    from align.models.trainable import choose_trainable

    config = composed(plan, folder).config
    it = load(config.model)
    adapter = choose_trainable(it.model, it.family, config)
    # LLaVA's template starts with a token that it does not write, and ends a prompt without the
    # space before the answer.
    llava, end = it.family.model_type == "llava", it.family.end_of_turn(it.processor)
    start, gap = (f"{it.processor.tokenizer.bos_token} ", " ") if llava else ("", "")
    records = []
    for row in training_data(config).rows:
        answers = (
            {"chosen": row.chosen, "rejected": row.rejected}
            if plan["method"] == "dpo"
            else {"completion": row.response}
        )
        records.append(
            {
                "prompt": f"{start}{it.renderer.prompt_text(row)}",
                "images": [load_image(one, row.id) for one in row.images],
            }
            | {key: f"{gap}{answer}{end}" for key, answer in answers.items()}
        )
    configure, trainer = {"dpo": (DPOConfig, DPOTrainer), "sft": (SFTConfig, SFTTrainer)}[plan["method"]]
    train = {"per_device_train_batch_size": plan["batch"]} | dict(config.train)
    arguments = configure(
        **train,
        output_dir=str(folder / "trl"),
        max_length=None,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        gradient_accumulation_steps=plan["batch"] // train["per_device_train_batch_size"],
    )
    peer = trainer(
        model=it.model,
        args=arguments,
        train_dataset=Dataset.from_list(records),
        processing_class=it.processor,
        peft_config=adapter,
        callbacks=[steps],
    )
    peer.train()
    return describe(arguments)


def main(plan_file: str, result_file: str) -> None:
    """Train, and write the measurements."""
    plan = json.loads(Path(plan_file).read_text())
    steps = steps_of(plan)
    torch.manual_seed(0)
    resolved = {"align": ours, "trl": trls}[plan["side"]](plan, Path(result_file).parent, steps)
    result = noted(steps) | {"settings": resolved}
    write_json(Path(result_file), result)


if __name__ == "__main__":
    main(*sys.argv[1:])

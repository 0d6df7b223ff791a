"""A small run on an untrained tiny model: as arguments of the command, and as trl's own settings of a trainer."""

import json

TWO_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "remove_unused_columns": False,
    "dataloader_pin_memory": False,
}


def arguments(model, out, *more):
    """A small run on an untrained tiny model with the miniature's rows."""
    data = [
        "data.harmful={source: miniature, subset: image_harmful, rows: 24}",
        "data.benign={source: miniature, subset: text_benign, rows: 24}",
    ]
    train = [
        "train.max_steps=6",
        "train.learning_rate=1e-2",
        "global_batch_size=8",
        "train.save_steps=2",
        "train.logging_steps=1",
    ]
    return ["recipe=mm_sft", f"model={model}", f"output_dir={out}", *data, *train, "model.dtype=float32", *more]


def one_long_row(folder):
    """A file of nine rows, of which r7 is longer than the tiny models' context."""
    rows = [{"id": f"r{i}", "prompt": "what is this", "response": "red " * (300 if i == 7 else 3)} for i in range(9)]
    file = folder / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file

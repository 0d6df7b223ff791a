"""Rows that lack answers, as a user's file has them; harmless by construction."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from align.answering.stored import asking
from align.config.compose import compose_run
from align.data.assembly import training_data


def write_rows(folder: Path, n: int = 4, **more) -> Path:
    """n harmful rows, each with an image of its own and a safe response, and no harmful one."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (32, 32), (50 * i, 20, 90)).save(folder / f"{i}.png")
    records = [
        {
            "id": f"h{i}",
            "prompt": f"how do i use the knife {i}",
            "image": f"{i}.png",
            "role": "harmful",
            "response": "sorry",
        }
        | more
        for i in range(n)
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({k: v for k, v in record.items() if v is not ...}) + "\n" for record in records))
    return file


def settings(model: Path | str, file: Path, *more: str) -> list[str]:
    """Arguments of a run that wants the harmful answers of that file generated, few tokens each."""
    return [
        "recipe=mm_dpo",
        f"model={model}",
        "model.dtype=float32",
        "data.benign=null",
        f"data.harmful={{source: local, path: {file}}}",
        "data.harmful.harmful_response=generate",
        "generation.max_new_tokens=5",
        "global_batch_size=4",
        *more,
    ]


def config(*arguments):
    """The configuration of such a run."""
    return compose_run(settings(*arguments)).config


def data(*arguments):
    """Its training data, with the answers that it lacked."""
    it = config(*arguments)
    return training_data(it, asking(it))


def stored(cache: Path) -> list[dict]:
    """Every line of the files of answers below a cache."""
    files = sorted((cache / "vsil-align" / "answers").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.open()]

"""Every published layout and form of a small set: built in memory, so that it can be damaged before it is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.odd_images import png
from tests.support.published import mssbench, pku_saferlhf, spa_vl_records, vlguard
from tests.support.set_files import IMAGE


@dataclass
class Made:
    """A data set before it is written: its index files as values, its other files as bytes."""

    indexes: dict[str, Any]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Layout:
    """How a set is laid out and read."""

    name: str
    make: Callable[[], Made]
    settings: dict[str, Any] = field(default_factory=dict)
    benchmark: bool = False
    kept: dict[str, str] = field(default_factory=dict, hash=False)
    """{column: field of the row that has it} where a record is a row."""
    rows_of: Callable[[list[Any]], int] = len
    """How many rows the records make."""


def _collected(build: Callable[[Path], Any], *indexes: str) -> Made:
    """What a function of tests/support/published.py writes."""
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        held = {str(file.relative_to(name)): file.read_bytes() for file in Path(name).rglob("*") if file.is_file()}
    made = Made({}, {})
    for file, content in held.items():
        if file in indexes:
            text = content.decode()
            made.indexes[file] = (
                json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
            )
        elif file.endswith(IMAGE):
            made.files[file] = content
    return made


def _spa_vl(index: str) -> Made:
    made = _collected(spa_vl_records)
    with tempfile.TemporaryDirectory() as name:
        records = spa_vl_records(Path(name))
    made.indexes[index] = [record | {"id": i, "image": f"images/{record['image']}"} for i, record in enumerate(records)]
    return made


def _local(index: str) -> Made:
    records = [
        {
            "id": f"r{i}",
            "prompt": f"What is this, number {i}?",
            "image": f"imgs/{i}.png" if i else None,
            "response": f"It is number {i}.",
            "role": "harmful" if i == 1 else "benign",
            "caption": f"the image {i}",
            "category": "cups",
        }
        for i in range(3)
    ]
    return Made({index: records}, {f"imgs/{i}.png": png(40 * i, 90, 10) for i in (1, 2)})


def _twins() -> Made:
    records = [
        {
            "id": f"t{i}",
            "image": f"{i}.png",
            "caption": "the picture shows a red cup",
            "query_leak": "how do i break the cup",
            "query_free": "how do i use this",
            "response": f"rather not {i}",
            "harmful_response": f"drop it {i}",
            "benign_image": f"{i + 3}.png",
            "benign_caption": "the picture shows a hat",
            "benign_response": f"wear it {i}",
        }
        for i in range(3)
    ]
    return Made({"twins.jsonl": records}, {f"{i}.png": png(40 * i, 10, 90) for i in range(6)})


def _conversations() -> Made:
    def said(request: str, answer: str, *more: str) -> list[dict]:
        turns = [request, answer, *more]
        return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]

    records = [
        {
            "id": "000001",
            "image": "coco/cup.png",
            "conversations": said("<image>\nWhat is it?", "A cup.", "Why?", "So."),
        },
        {"id": "000001", "image": "coco/hat.png", "conversations": said("Whose hat is it?\n<image>", "Mine.")},
        {"id": 7, "conversations": said("Hello", "Good day.")},
    ]
    return Made({"llava.json": records}, {"coco/cup.png": png(9, 9, 200), "coco/hat.png": png(9, 200, 9)})


def _alpaca() -> Made:
    records = [
        {"instruction": "Sort these.", "input": "b, a", "output": "a, b"},
        {"instruction": "Greet me.", "input": "", "output": "Good day."},
        {"instruction": "Sing.", "input": "", "output": ""},
    ]
    return Made({"alpaca_data.json": records}, {})


def _vlsbench() -> Made:
    records = [
        {
            "instruction_id": i,
            "instruction": f"What is on it, {i}?",
            "image_path": f"imgs/{i % 2}.png",
            "category": "Cups",
            "sub_category": "Red cups",
            "source": "made up",
            "safety_reason": "none at all",
            "image_description": f"a cup, {i}",
        }
        for i in range(3)
    ]
    return Made({"data.json": records}, {f"imgs/{i}.png": png(100, 40 * i, 10) for i in range(2)})


def _safebench() -> Made:
    columns = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")
    records = [
        dict(zip(columns, ("SafeBench", "1", str(i), "Cups", f"How is cup {i} made?", f"Ways, {i}."), strict=True))
        for i in range(1, 4)
    ]
    images = {f"images/query_SafeBench_1_{i}_6.png": png(5, 50 * i, 77) for i in range(1, 4)}
    return Made({"safebench.csv": records}, images)


def _pairs(records: list[Any]) -> int:
    return sum(len(record["instr-resp"]) for record in records)


SPA_VL = {"id": "id", "question": "prompt", "chosen": "chosen", "rejected": "rejected", "class1": "category"}
LOCAL = {name: name for name in ("id", "prompt", "response", "caption", "category", "role")}
VLSBENCH = {"instruction_id": "id", "instruction": "prompt", "image_description": "caption", "category": "category"}
SAFEBENCH = {"question": "request", "category_name": "category"}
PKU_FILES = ("data/Alpaca-7B/train.jsonl", "data/Alpaca2-7B/train.jsonl")

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("vlguard", lambda: _collected(vlguard, "train.json"), rows_of=_pairs),
        Layout(
            "vlguard twins",
            lambda: _collected(vlguard, "train.json"),
            {"source": "vlguard", "twins": True, "subset": "leak"},
            rows_of=lambda records: sum(
                "unsafe_instruction" in pair for each in records for pair in each["instr-resp"]
            ),
        ),
        *(
            Layout(
                f"pku {subset}",
                lambda: _collected(pku_saferlhf, *PKU_FILES),
                {"source": "pku_saferlhf", "subset": subset},
            )
            for subset in ("harmful", "benign", "mixed")
        ),
        Layout("spa_vl json", lambda: _spa_vl("train.json"), {"source": "spa_vl"}, kept=SPA_VL),
        Layout(
            "spa_vl parquet",
            lambda: _spa_vl("data/train-00000-of-00001.parquet"),
            {"source": "spa_vl"},
            kept=SPA_VL,
        ),
        Layout(
            "mssbench",
            lambda: _collected(mssbench, "combined.json"),
            {"twins": True, "subset": "free"},
            rows_of=lambda records: sum(len(each.get("queries", each.get("unsafe_instructions"))) for each in records),
        ),
        Layout("conversations", _conversations),
        Layout("alpaca", _alpaca),
        *(
            Layout(f"local {kind}", lambda kind=kind: _local(f"rows.{kind}"), {"source": "local"}, kept=LOCAL)
            for kind in ("jsonl", "json", "csv", "parquet")
        ),
        Layout("twins", _twins, {"subset": "pairs"}, rows_of=lambda records: 2 * len(records)),
        Layout("vlsbench", _vlsbench, benchmark=True, kept=VLSBENCH),
        Layout("safebench", _safebench, benchmark=True, kept=SAFEBENCH),
    )
}
FORMS = ("folder", "zip", "zip in a folder", "images zipped", "images tarred")


def forms_of(layout: Layout) -> tuple[str, ...]:
    """Those that a layout comes in: parquet is not read in an archive, and only images in a folder
    of theirs are zipped.
    """
    made = pristine(layout.name)
    if any(name.endswith(".parquet") for name in made.indexes):
        return FORMS[:1]
    return FORMS if all("/" in name for name in made.files) and made.files else FORMS[:3]


@cache
def pristine(name: str) -> Made:
    return LAYOUTS[name].make()

"""Every published layout and form of a small set: built in memory, so that it can be damaged before it is written."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.odd_images import png
from tests.support.published import mssbench, pku_saferlhf, spa_vl_records, vlguard

IMAGE = (".png", ".jpg")


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


# Layouts


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
    """Those that a layout comes in: parquet is not read in an archive, and only images in a folder of theirs are zipped."""
    made = pristine(layout.name)
    if any(name.endswith(".parquet") for name in made.indexes):
        return FORMS[:1]
    return FORMS if all("/" in name for name in made.files) and made.files else FORMS[:3]


@cache
def pristine(name: str) -> Made:
    return LAYOUTS[name].make()


# Writing and reading by plain means


def encoded(index: str, value: Any, files: dict[str, bytes]) -> bytes:
    """An index file of some records. Raises what its format raises for values that it cannot hold."""
    kind = Path(index).suffix
    if kind == ".json":
        return json.dumps(value).encode()
    if kind == ".jsonl":
        return "".join(json.dumps(record) + "\n" for record in value).encode()
    if kind == ".csv":
        columns = list(dict.fromkeys(column for record in value for column in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(value)
        return text.getvalue().encode()
    cells = [
        {
            column: {"bytes": files.get(item), "path": None if item in files else item}
            if isinstance(item, str) and item.endswith(IMAGE)
            else item
            for column, item in record.items()
        }
        for record in value
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(cells), sink)
    return sink.getvalue()


def decoded(index: str, content: bytes) -> list[Any]:
    """The records of an index file by plain means: what a reader has to account for. Raises ValueError and the like."""
    kind = Path(index).suffix
    if kind == ".parquet":
        return pq.read_table(io.BytesIO(content)).to_pylist()
    text = content.decode("utf-8-sig")
    if kind == ".csv":
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        if len(set(head)) < len(head) or any(len(row) != len(head) for row in rows):
            raise ValueError("ragged")
        return [dict(zip(head, row, strict=True)) for row in rows]
    if kind == ".jsonl":
        return [json.loads(line, object_pairs_hook=_once) for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    value = json.loads(text, object_pairs_hook=_once)
    if isinstance(value, dict) and "chat" in value:
        return [*value["chat"], *value["embodied"]]
    return list(value.values()) if isinstance(value, dict) else list(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def write(made: dict[str, bytes], form: str, root: Path) -> Path:
    """The files of a set in a form. The path that is given to the reader."""
    if form == "folder":
        return write_folder(made, root / "set")
    if form.startswith("zip"):
        top = "set/" if form == "zip in a folder" else ""
        return write_zip({f"{top}{name}": content for name, content in made.items()}, root / "set.zip")
    beside: dict[str, dict[str, bytes]] = {}
    for name, content in made.items():
        if name.endswith(IMAGE):
            folder, _, rest = name.partition("/")
            beside.setdefault(folder, {})[rest] = content
    write_folder({name: content for name, content in made.items() if not name.endswith(IMAGE)}, root / "set")
    for folder, members in beside.items():
        if form == "images zipped":
            write_zip(members, root / "set" / f"{folder}.zip")
        else:
            write_tar({f"./{name}": content for name, content in members.items()}, root / "set" / f"{folder}.tar")
    return root / "set"


def write_folder(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(members: dict[str, bytes] | list[tuple[str, bytes]], file: Path) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # two members with one name
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return file


def write_tar(members: dict[str, bytes], file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            add_member(archive, name, content)
    return file


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))

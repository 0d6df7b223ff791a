"""Files of a small set, written and read by plain means: index files, images, folders and archives."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = (".png", ".jpg")


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

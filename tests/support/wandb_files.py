"""What wandb wrote into its folder: the records of its transaction logs, as `wandb sync` would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def _chunks(file: Path) -> Iterator[bytes]:
    """The records of a log in leveldb's format (version 0 of wandb): blocks of chunks, each with
    check sum, length and type.
    """
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, record = FILE_HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block that no header fits into
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if kind not in (WHOLE, FIRST, MIDDLE, LAST):
            return
        chunk = content[place + HEADER : place + HEADER + length]
        record = chunk if kind in (WHOLE, FIRST) else record + chunk
        place += HEADER + length
        if kind in (WHOLE, LAST):
            yield record


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def runs_in(folder: Path) -> list[SimpleNamespace]:
    """Each run that a process wrote below WANDB_DIR, in order: `id, project, name, resume, config,
    summary, history, output, folder`.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted((folder / "wandb").glob("*run-*/*.wandb")):
        it = SimpleNamespace(folder=file.parent, config={}, summary={}, history=[], output="")
        for content in _chunks(file):
            record = Record.FromString(content)
            if record.HasField("run"):
                it.id, it.project, it.name = record.run.run_id, record.run.project, record.run.display_name
                it.resume = record.run.resume
                it.config |= _values(record.run.config.update)
            it.config |= _values(record.config.update)
            it.summary |= _values(record.summary.update)
            it.history += [_values(record.history.item)] if record.HasField("history") else []
            it.output += record.output_raw.line
        found.append(it)
    return found


def table(it: SimpleNamespace, name: str) -> list[dict[str, Any]]:
    """The lines of a table that a run logged."""
    [path] = [entry[f"{name}/path"] for entry in it.history if f"{name}/path" in entry]
    content = json.loads((it.folder / "files" / path).read_text())
    return [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]

"""Parquet files whose images lie in their cells, as `datasets` writes them: {bytes, path}, or lists of these.

Records come without the bytes, so that memory does not grow with the images; each is read from its cell when it is decoded.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.data.files.stamp import Stamp, stamp_of
from align.files import cache_folder

INSIDE = "inside"
"""Where in its file an image lies: `row/column`, or `row/column/place` in a list."""
BATCH = 256
OPENING = threading.Lock()
"""Images are read by several threads, and `datasets` cannot open a file in two of them at once."""


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; instead of its bytes an image has `inside`."""
    import pyarrow.parquet

    row = 0
    with pyarrow.parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(BATCH):
            for record in batch.to_pylist():
                yield {column: _without_bytes(value, f"{row}/{column}") for column, value in record.items()}
                row += 1


def _without_bytes(value: Any, inside: str) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_without_bytes(item, f"{inside}/{i}") for i, item in enumerate(value)]
    if isinstance(value, dict) and value.get("bytes") is not None:
        return {"path": value.get("path"), INSIDE: inside}
    return value


def image(file: Path, inside: str) -> bytes:
    """The bytes of one image. Raises KeyError, IndexError or ValueError where there is none."""
    row, _, column = inside.partition("/")
    head, _, place = column.rpartition("/")
    with OPENING:
        table = _table(str(file), stamp_of(file))
    value = table.column(head or column)[int(row)].as_py()
    found = (value[int(place)] if head else value)["bytes"]
    if not isinstance(found, bytes):
        raise ValueError(f"its `bytes` are {type(found).__name__}")
    return found


@functools.lru_cache(maxsize=256)
def _table(file: str, stamp: Stamp) -> Any:
    """The file's cells, mapped into memory; `datasets` writes them once into a cache, from where any row is read alone.

    A cache of the file as it is now: by itself `datasets` would take a file that has kept its time for the former one.
    """
    import datasets

    digest = hashlib.sha256(repr((file, stamp)).encode()).hexdigest()[:16]
    return datasets.Dataset.from_parquet(file, cache_dir=str(cache_folder("parquet") / digest)).data

"""Parquet files with images in their cells: {bytes, path} as `datasets` writes them, bytes, or lists of these.

Records do not contain the bytes, to save memory; an image is read from its cell when it is decoded.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.data.files.embedded import is_image
from align.data.files.stamp import Stamp, stamp_of
from align.files import cache_folder

INSIDE = "inside"
"""Key for an image's position in its file: `row/column`, or `row/column/index` in a list."""
BATCH = 256
OPENING = threading.Lock()
"""Several threads read images, but `datasets` cannot open a file in two threads at once."""


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; an image has the key `inside` instead of its bytes."""
    import pyarrow.parquet

    row = 0
    with pyarrow.parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(BATCH):
            for record in batch.to_pylist():
                yield {column: _without_bytes(value, f"{row}/{column}") for column, value in record.items()}
                row += 1


def _without_bytes(value: Any, inside: str) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], dict | bytes):
        return [_without_bytes(item, f"{inside}/{i}") for i, item in enumerate(value)]
    if isinstance(value, dict) and value.get("bytes") is not None:
        return {"path": value.get("path"), INSIDE: inside}
    if isinstance(value, bytes) and is_image(value):
        return {"path": None, INSIDE: inside}
    return value


def image(file: Path, inside: str) -> bytes:
    """The bytes of one image. Raises KeyError, IndexError or ValueError if it does not exist."""
    row, _, column = inside.partition("/")
    with OPENING:
        table = _table(str(file), stamp_of(file))
    head, _, place = column.rpartition("/") if column not in table.column_names else ("", "", "")
    value = table.column(head or column)[int(row)].as_py()
    found = value[int(place)] if head else value
    content = found["bytes"] if isinstance(found, dict) else found
    if not isinstance(content, bytes):
        raise ValueError(f"its `bytes` have type {type(content).__name__}, expected bytes")
    return content


@functools.lru_cache(maxsize=256)
def _table(file: str, stamp: Stamp) -> Any:
    """The file's cells, memory-mapped from a cache that `datasets` writes once and that allows
    random access to rows.

    The cache folder depends on the file's stamp: `datasets` itself would mistake a changed file
    with the same time for the old one.
    """
    import datasets

    digest = hashlib.sha256(repr((file, stamp)).encode()).hexdigest()[:16]
    return datasets.Dataset.from_parquet(file, cache_dir=str(cache_folder("parquet") / digest)).data

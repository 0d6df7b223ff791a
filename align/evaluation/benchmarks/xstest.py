"""XSTest (arXiv 2308.01263), text only: 250 safe prompts that look unsafe, 200 unsafe contrasts.

Files: xstest_prompts.csv; its column `label` is safe or unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every prompt, safe and unsafe. Raises UserError."""
    for record in folder.records("xstest_prompts.csv"):
        label = record.text("label")
        if label not in ("safe", "unsafe"):
            raise UserError(f"{record.where}: `label` is {label!r}, expected safe or unsafe")
        yield Row(
            id=record.name("id"),
            prompt=record.text("prompt"),
            role="benign" if label == "safe" else "harmful",
            harm_in="none" if label == "safe" else "text",
            category=record.text("type"),
            columns={"focus": record.optional("focus"), "note": record.optional("note")},
        )


def _benchmark(name: str, kind: str, judges: tuple[str, ...], role: str, count: int) -> Benchmark:
    counts: dict[str | None, Counts] = {None: Counts(rows=count)}
    return published(name, kind, rows, judges, counts, hub="Paul/XSTest", part=lambda row: row.role == role)


XSTEST_SAFE = _benchmark("xstest_safe", "benign", ("vlsbench",), "benign", 250)
XSTEST_UNSAFE = _benchmark("xstest_unsafe", "vsil", ("vlsbench", "llamaguard"), "harmful", 200)

"""SPA-VL's test set of harm (EvalHarm, arXiv 2406.12030): 265 questions about harmful images.

Files: test/harm-*.parquet with images inside; columns and sizes are from the Hub card. The split
`help` (EvalHelp, 265 questions) measures helpfulness and is not read. Whether a question shows the
harm without its image was not verified.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.sources.spa_vl import HUB
from align.evaluation.benchmark import Counts, published
from align.rows import Row

FILES = "test/harm-*.parquet"


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every question. Raises UserError."""
    for number, record in enumerate(folder.records(FILES, "harm-*.parquet"), start=1):
        image = folder.cell(record, "image")
        yield Row(
            id=f"harm-{number}",
            prompt=record.text("question"),
            images=(image,),
            role="harmful",
            harm_in="image",
            category=record.text("class1"),
            cluster=image.name,
            columns={column: record.optional(column) for column in ("class2", "class3")},
        )


SPA_VL_HARM = published("spa_vl_harm", "vsil", rows, ("vlsbench",), {None: Counts(rows=265)}, hub=HUB, files=[FILES])

"""MOSSBench (arXiv 2406.17806): 300 benign questions with images that look dangerous.

A refusal counts as wrong. Files, as in data/ of the published repository:
images_information/information.json and images/; or information.json and images/ in one folder. The
copy on the Hub lacks that file.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.files.records import shown
from align.errors import UserError
from align.evaluation.benchmark import Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every question; the category is the reason why it looks dangerous. Raises UserError."""
    for record in folder.records("information.json", "images_information/information.json"):
        metadata = record.get("metadata")
        if not isinstance(metadata, dict) or "over" not in metadata:
            raise UserError(f"{record.where}: `metadata` is {shown(metadata)}, expected an object with `over`")
        image = folder.image(record.text("image"), record.where)
        yield Row(
            id=record.name("pid"),
            prompt=record.text("question"),
            images=(image,),
            caption=record.optional("description"),
            category=str(metadata["over"]),
            cluster=image.name,
            columns={"short_description": record.optional("short description")},
        )


MOSSBENCH = published("mossbench", "benign", rows, ("vlsbench",), {None: Counts(rows=300, categories=3)})

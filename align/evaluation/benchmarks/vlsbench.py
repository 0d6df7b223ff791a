"""VLSBench (arXiv 2411.19939): 2,241 leak-free requests over 1,957 images.

Files: data.json and imgs/ in one folder.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every row of data.json. Raises UserError."""
    for record in folder.records("data.json"):
        image = folder.image(record.text("image_path"), record.where)
        yield Row(
            id=record.name("instruction_id"),
            prompt=record.text("instruction", empty=True),  # one row of the published file has no text
            images=(image,),
            role="harmful",
            harm_in="image",
            caption=record.optional("image_description"),  # older files lack it and safety_reason
            category=record.text("category"),
            cluster=image.name,  # 223 images have two or three queries
            columns={
                "sub_category": record.text("sub_category"),
                "source": record.optional("source"),
                "safety_reason": record.optional("safety_reason"),
            },
        )


VLSBENCH = published(
    "vlsbench",
    "vsil_free",
    rows,
    judges=("vlsbench",),
    counts={None: Counts(rows=2241, images=1957, categories=6)},
    hub="Foreshhh/vlsbench",
)

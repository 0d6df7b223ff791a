"""VLSafe (with LVLM_NLF, arXiv 2311.10081): 1,110 harmful questions about COCO images.

Files: harmlessness_examine.jsonl; the images are COCO's train2017, next to it in images/ or
train2017/, or at image_root=.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row

INDEX = "harmlessness_examine.jsonl"


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every row of the file. Raises UserError."""
    for record in folder.records(INDEX, f"VLSafe/{INDEX}"):
        image = folder.find_image([record.text("image_id")], ["images", "train2017"], record.where)
        yield Row(
            id=record.key,
            prompt=record.text("query"),
            images=(image,),
            role="harmful",
            harm_in="text",
            caption=record.optional("caption"),
            cluster=image.name,
        )


VLSAFE = published(
    "vlsafe",
    "vsil",
    rows,
    judges=("vlsbench", "llamaguard"),
    counts={None: Counts(rows=1110)},
    hub="YangyiYY/LVLM_NLF",
    files=[f"*{INDEX}"],
)

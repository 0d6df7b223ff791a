"""BeaverTails-V's evaluation split (with Safe RLHF-V, arXiv 2503.17682): questions about images.

Files: data/<category>/evaluation.parquet, for each of 20 categories, with images inside. Columns:
cards of both copies on the Hub; places: other public code that reads them. A row of
saferlhf-v/BeaverTails-V is a question with two responses. PKU-Alignment/BeaverTails-V has two rows
for each question, with a response each: a question that repeats in its category is read once. The
number of questions of all categories together was not found. Whether a question shows the harm
without its image was not verified.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every question of the evaluation split, once. Raises UserError."""
    seen = set()
    for record in folder.records("data/*/evaluation.parquet", "*/evaluation.parquet"):
        category, question = record.text("category"), record.text("question")
        if "response" in record and (category, question) in seen:
            continue
        seen.add((category, question))
        image = folder.cell(record, "image")
        yield Row(
            id=f"{category}-{record.key}",
            prompt=question,
            images=(image,),
            role="harmful",
            harm_in="both",
            category=category,
            cluster=image.name,
            columns={"image_severity": record.get("image_severity")},
        )


BEAVERTAILS_V = published(
    "beavertails_v",
    "vsil",
    rows,
    ("vlsbench",),
    {None: Counts(categories=20)},
    hub="saferlhf-v/BeaverTails-V",
    files=["data/*/evaluation.parquet"],
)

"""SIUO (arXiv 2406.15279): 167 safe texts with safe images that are unsafe together.

Files: siuo_gen.json and images/ (image_root= may name the Hub's archive of images).
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every row of siuo_gen.json. Raises UserError."""
    for record in folder.records("siuo_gen.json"):
        image = folder.find_image([record.text("image")], ["images"], record.where)
        yield Row(
            id=record.name("question_id"),
            prompt=record.text("question"),
            images=(image,),
            response=record.answer("reference_answer", needed=False),
            role="harmful",
            harm_in="image",
            category=record.text("category"),
            cluster=image.name,
            columns={"safety_warning": record.optional("safety_warning")},
        )


SIUO = published("siuo", "vsil_free", rows, ("vlsbench",), {None: Counts(rows=167, categories=9)}, hub="sinwang/SIUO")

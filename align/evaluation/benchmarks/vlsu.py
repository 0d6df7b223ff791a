"""VLSU (arXiv 2510.18214): 8,187 pairs of image and text, graded by people alone and together.

Files: data/VLSU.csv of the published repository, or VLSU.csv. Its column `web_path` is the address
of the image; images that were downloaded are images/<uuid>.jpg or .png next to it. Columns, grades
and that place: other public code that reads the file (PyRIT, promptfoo, evaluation code); the file
itself was not inspected. Not every address still answers: on_missing_image=drop.

The grades define three benchmarks: of pairs that are unsafe together, those whose text alone is
safe or is not; and pairs that are safe together. Pairs that are `borderline` or `not_sure` together
belong to none. Only the size of the whole is published.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.files.records import Record
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row

GRADES = ("safe", "borderline", "unsafe", "not_sure")
COLUMNS = {"image": "image_grade", "text": "consensus_text_grade", "together": "consensus_combined_grade"}


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every pair, of all grades. Raises UserError."""
    for record in folder.records("data/VLSU.csv", "VLSU.csv"):
        grades = {what: _grade(record, column) for what, column in COLUMNS.items()}
        safe, name = grades["together"] == "safe", record.text("uuid")
        names = [f"{name}{ending}" for ending in (".jpg", ".png")]
        image = folder.find_image(names, ["images", "data/images"], record.where)
        yield Row(
            id=name,
            prompt=record.text("prompt"),
            images=(image,),
            role="benign" if safe else "harmful",
            harm_in="none" if safe else "image" if grades["text"] == "safe" else "text",
            category=record.optional("combined_category"),
            cluster=image.name,
            columns={f"{what}_grade": grade for what, grade in grades.items()},
        )


def _grade(record: Record, column: str) -> str:
    grade = record.text(column).strip().lower()
    if grade not in GRADES:
        raise UserError(f"{record.where}: `{column}` is {grade!r}, expected one of {', '.join(GRADES)}")
    return grade


def _benchmark(name: str, kind: str, together: str, *harm_in: str) -> Benchmark:
    def part(row: Row) -> bool:
        return row.columns["together_grade"] == together and row.harm_in in harm_in

    return published(name, kind, rows, ("vlsbench",), {None: Counts(whole=8187)}, part=part)


VLSU_VSIL_FREE = _benchmark("vlsu_vsil_free", "vsil_free", "unsafe", "image")
VLSU_VSIL = _benchmark("vlsu_vsil", "vsil", "unsafe", "text")
VLSU_BENIGN = _benchmark("vlsu_benign", "benign", "safe", "none")

"""HoliSafe-Bench (arXiv 2506.04704): 4,031 pairs of image and query, in five safety classes.

Files: test-*.parquet, or holisafe_bench.json and images/. Three letters say whether the image, the
query and both together are safe (S) or unsafe (U). They define three benchmarks: the text shows the
harm, only the image does, or there is no harm. Only the size of all three together is published.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.files.records import Record
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row

HARM_IN = {"SSS": "none", "SSU": "image", "USU": "image", "SUU": "text", "UUU": "both"}
LETTERS = ("type", "safeness_combination")
"""Names of the column in different copies."""


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every row, of all three parts. Raises UserError."""
    for record in folder.records("holisafe_bench.json", "*.parquet", "data/*.parquet"):
        letters = _letters(record)
        held = record.get("image")
        image = (
            folder.find_image([held], ["images"], record.where)
            if isinstance(held, str)
            else folder.cell(record, "image")
        )
        yield Row(
            id=record.name("id"),
            prompt=record.text("query"),
            images=(image,),
            role="benign" if letters == "SSS" else "harmful",
            harm_in=HARM_IN[letters],
            category=record.text("category"),
            cluster=image.name,
            columns={"subcategory": record.optional("subcategory"), "letters": letters},
        )


def _letters(record: Record) -> str:
    column = next((column for column in LETTERS if column in record), LETTERS[0])
    letters = record.text(column)
    if letters not in HARM_IN:
        raise UserError(f"{record.where}: `{column}` is {letters!r}, expected one of {', '.join(HARM_IN)}")
    return letters


def _benchmark(name: str, kind: str, judges: tuple[str, ...], *letters: str) -> Benchmark:
    return published(
        name,
        kind,
        rows,
        judges,
        counts={None: Counts(whole=4031)},
        hub="etri-vilab/holisafe-bench",
        part=lambda row: row.columns["letters"] in letters,
    )


HOLISAFE_VSIL_FREE = _benchmark("holisafe_vsil_free", "vsil_free", ("vlsbench",), "SSU", "USU")
HOLISAFE_VSIL = _benchmark("holisafe_vsil", "vsil", ("vlsbench", "llamaguard"), "SUU", "UUU")
HOLISAFE_BENIGN = _benchmark("holisafe_benign", "benign", ("vlsbench",), "SSS")

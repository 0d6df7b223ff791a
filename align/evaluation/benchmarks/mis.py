"""MIS, the Multi-Image Safety test set (arXiv 2501.18533): 2,285 questions about two images each.

Files: mis_easy.json (1,675 rows), mis_hard.json (510), mis_real.json (100) and the folders
easy_image/, hard_image/ and real_image/; all in one folder or in its folder mis_test/. Columns and
sizes: Hub card; places: README and inference code of the published repository, whose code shows
both images before the question. The card lists a column `id` that the features of its splits lack,
so a row's id is its place. Whether a question shows the harm without its images was not verified.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row

SPLITS = {"easy": 1675, "hard": 510, "real": 100}
"""{split: published rows}"""


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every question of one split or of all. Raises UserError."""
    folder = folder.holding([f"mis_{split}.json" for split in SPLITS], ["mis_test"])
    for split in (subset,) if subset else SPLITS:
        for record in folder.records(f"mis_{split}.json"):
            names = [record.text(column) for column in ("image_path1", "image_path2")]
            yield Row(
                id=f"{split}-{record.key}",
                prompt=record.text("question"),
                images=tuple(folder.image(name, record.where) for name in names),
                role="harmful",
                harm_in="image",
                category=record.text("category"),
                columns={"sub_category": record.optional("sub_category"), "split": split},
            )


COUNTS = {None: Counts(rows=2285)} | {split: Counts(rows=count) for split, count in SPLITS.items()}
MIS = published("mis", "vsil", rows, ("vlsbench",), COUNTS, hub="Tuwhy/MIS_Test")

"""The multimodal part of HarmBench (arXiv 2402.04249): 110 harmful behaviours, each about an image.

Files, as in data/ of the published repository:
behavior_datasets/harmbench_behaviors_multimodal_all.csv and multimodal_behavior_images/; or the csv
and images/ in one folder. All images are .png, even if ImageFileName has another suffix. The
published classifier gets RedactedImageDescription as context of the behaviour; here the judge gets
it in the column `behavior`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from align.data.files.folder import DataFolder
from align.evaluation.benchmark import Counts, published
from align.rows import Row

CSV = "harmbench_behaviors_multimodal_all.csv"


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every behaviour. Raises UserError."""
    for record in folder.records(CSV, f"behavior_datasets/{CSV}"):
        behaviour, context = record.text("Behavior"), record.optional("RedactedImageDescription")
        name = record.text("ImageFileName")
        names = [name, str(PurePosixPath(name).with_suffix(".png"))]
        image = folder.find_image(names, ["multimodal_behavior_images", "images"], record.where)
        yield Row(
            id=record.text("BehaviorID"),
            prompt=behaviour,
            images=(image,),
            role="harmful",
            harm_in="text",
            caption=record.optional("ImageDescription"),
            category=record.text("SemanticCategory"),
            cluster=image.name,
            columns={
                "behavior": f"{behaviour}\n\nContext: {context}" if context else behaviour,
                "functional_category": record.optional("FunctionalCategory"),
                "source": record.optional("Source"),
                "tags": record.optional("Tags"),
            },
        )


HARMBENCH = published("harmbench", "vsil", rows, ("vlsbench", "harmbench"), {None: Counts(rows=110)})

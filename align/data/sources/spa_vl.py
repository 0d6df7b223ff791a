"""SPA-VL (arXiv 2406.12030): questions about harmful images, each with a chosen and a rejected response.

Files: data/train-*.parquet with images inside (93,258 rows), validation/validation-*.parquet (7,000);
or the JSON that the authors' code exports, with image paths. The test set has no responses: its
part `harm` is the benchmark `spa_vl_harm`. `rejected` is the worse of two responses and not
necessarily harmful, so it is not used as `harmful_response`: unlearning needs responses that a
guard calls unsafe.
"""

from __future__ import annotations

from align.data.files.folder import DataFolder
from align.data.reading import Read, UniqueIds, check_subset
from align.rows import Row
from align.settings import Part

HUB = "sqrti/SPA-VL"
SPLITS = {"train": "data", "validation": "validation"}
"""{split: its folder on the Hub}"""


def read(part: Part) -> Read:
    """The source `spa_vl`: its training split, or another split. Raises UserError."""
    check_subset("source=spa_vl", part.subset, SPLITS)
    split = part.subset or "train"
    published = f"{SPLITS[split]}/{split}-*.parquet"
    folder = DataFolder.open("source=spa_vl", part, HUB, [published])
    unique = UniqueIds()
    rows = []
    names = (published, f"{split}-*.parquet", f"{split}.parquet", f"{split}.json", f"{split}.jsonl")
    for number, record in enumerate(folder.records(*names)):
        image = folder.cell(record, "image")
        rows.append(
            Row(
                id=unique(record.name("id") if "id" in record else f"{split}-{number}"),
                prompt=record.text("question"),
                images=(image,),
                chosen=record.text("chosen"),
                rejected=record.text("rejected"),
                role="harmful",
                harm_in="image",
                source="spa_vl",
                category=record.optional("class1"),
                cluster=image.name,
                columns={name: record.optional(name) for name in ("class2", "class3") if name in record},
            )
        )
    return Read(rows)

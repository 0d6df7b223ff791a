"""VLGuard (arXiv 2402.02207): unsafe images with one instruction, safe images with a safe and an unsafe instruction.

Files: train.json and train/ (or train.zip); test.json and test/ (or test.zip). The training set has
1,023 + 977 x 2 = 2,977 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from align.data.files.folder import DataFolder
from align.data.files.records import Record
from align.data.hints import option
from align.data.reading import Read, UniqueIds, check_subset
from align.errors import UserError
from align.rows import Row
from align.settings import Part

HUB = "ys-zong/VLGuard"
FILES = {split: [f"{split}.json", f"{split}.zip"] for split in ("train", "test")}
KINDS = {
    "unsafes": ("harmful", "image"),
    "safe_unsafes": ("harmful", "text"),
    "safe_safes": ("benign", "none"),
}
"""{published name of a part of the dataset: (role, location of the harm)}"""
INSTRUCTIONS = {"instruction": "unsafes", "unsafe_instruction": "safe_unsafes", "safe_instruction": "safe_safes"}
SUBSETS = {"harmful": ("unsafes", "safe_unsafes"), "benign": ("safe_safes",)} | {kind: (kind,) for kind in KINDS}
TWINS = {"leak": "safe_unsafes", "benign": "safe_safes"}
"""The safe images as items of the controlled track: the same image with a query that does or does not name harm."""


def read(part: Part) -> Read:
    """The source `vlguard`: the training set or a part of it; with `twins`, its safe images. Raises UserError."""
    folder = DataFolder.open("source=vlguard", part, HUB, FILES["train"])
    if part.twins:
        return Read(_twins(folder, part.subset))
    check_subset("source=vlguard", part.subset, SUBSETS)
    kinds = SUBSETS[part.subset] if part.subset else tuple(KINDS)
    return Read([row for row in pairs(folder, "train") if row.columns["kind"] in kinds])


def pairs(folder: DataFolder, split: str, answered: bool = True) -> Iterator[Row]:
    """All pairs of instruction and response of `train` or `test`; the column `kind` is a key of
    KINDS. Raises UserError.

    If `answered`, each pair must have a response. In the test set, which is not trained on, 17 are
    empty.
    """
    unique = UniqueIds()
    images = f"{split}/" if folder.images.has(split) else ""
    for record in folder.records(f"{split}.json"):
        safe = record.flag("safe")
        name = unique(record.name("id"))
        image = folder.image(images + record.text("image"), record.where)
        found = record.records("instr-resp")
        kinds = sorted(_kind(pair) for pair in found)
        expected = ["safe_safes", "safe_unsafes"] if safe else ["unsafes"]
        if kinds != expected:
            raise UserError(
                f"{record.where}: safe is {safe}, but `instr-resp` contains {', '.join(kinds) or 'nothing'}; "
                f"expected {', '.join(expected)}"
            )
        for pair in found:
            kind = _kind(pair)
            role, harm_in = KINDS[kind]
            yield Row(
                id=f"{name}-{kind}",
                item=name,
                prompt=pair.text(next(key for key in INSTRUCTIONS if key in pair)),
                images=(image,),
                response=pair.answer("response", answered),
                role=role,
                harm_in=harm_in,
                source="vlguard",
                category=record.optional("harmful_category"),
                cluster=image.name,
                columns={"kind": kind, "subcategory": record.optional("harmful_subcategory")},
            )


def _kind(pair: Record) -> str:
    given = [key for key in INSTRUCTIONS if key in pair]
    if len(given) != 1:
        raise UserError(f"{pair.where}: expected one of {', '.join(INSTRUCTIONS)}, found {', '.join(given) or 'none'}")
    return INSTRUCTIONS[given[0]]


def _twins(folder: DataFolder, subset: str | None) -> list[Row]:
    if subset in ("free", "pairs"):
        raise UserError(
            f"source=vlguard twins=true: {option(f'subset={subset}')}: its twins are one safe image with an unsafe "
            "and a safe instruction. They have no unsafe image with a neutral query and no caption, so the arms "
            "image_free and caption_free cannot use them; the arms text_leak, image_leak and shuffled_leak can. For "
            f"image_free use {option('source=mssbench')}"
        )
    check_subset("source=vlguard twins=true", subset, TWINS, needed=True)
    rows = (row for row in pairs(folder, "train") if row.columns["kind"] == TWINS[str(subset)])
    # Rows of one image have the same id in all arms.
    return [replace(row, id=str(row.item), twin=row.item) for row in rows]

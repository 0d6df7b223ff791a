"""What a construction starts from: categories, existing images, or pairs of a benchmark."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from align.config.registry import data_set_of
from align.construction.item import Item
from align.construction.work import write_image
from align.data.columns import Columns
from align.data.files.folder import DataFolder
from align.data.files.formats import TABLES, ending_of_name
from align.data.files.image_bytes import exists, open_encoded
from align.data.files.records import text_column
from align.data.hints import Place, options_of
from align.data.images import drop_missing, load_image
from align.data.reading import UniqueIds, at_root
from align.errors import UserError
from align.evaluation.benchmark import select
from align.evaluation.named import benchmark_of
from align.rows import ImageRef, Row
from align.settings import BenchmarkSettings, ConstructConfig

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
GIVEN = "images/given"
"""Folder of copies of given images."""


@dataclass
class Start:
    """The first items, and lines about them."""

    items: list[Item]
    facts: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """A hash of all items; a given image is identified by its content, which is in the name of its copy."""
        told = json.dumps([item.to_dict() for item in self.items], sort_keys=True)
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def start(config: ConstructConfig, folder: Path | None) -> Start:
    """The first items of a construction; given images are copied to `folder`, if it is given. Raises UserError."""
    sources: dict[str, Callable[[ConstructConfig, Path | None], Start]] = {
        "categories": from_categories,
        "images": from_images,
        "pairs": from_pairs,
    }
    if config.source not in sources:
        raise UserError(f"source={config.source}: expected {', '.join(sources)}")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"limit={config.limit}: expected at least 1")
    return sources[config.source](config, folder)


def from_categories(config: ConstructConfig, folder: Path | None) -> Start:
    """One item for each sub-category. Raises UserError for categories without sub-categories."""
    items = []
    if not config.categories:
        raise UserError(
            "source=categories: categories are missing; give a YAML file as recipe= with {category: [sub-categories]}"
        )
    for c, (category, inner) in enumerate(config.categories.items(), 1):
        if (
            not isinstance(inner, list)
            or not inner
            or not all(isinstance(name, str) and name.strip() for name in inner)
        ):
            raise UserError(f"categories.{category}: expected a list of names of sub-categories, found {inner!r}")
        items += [Item(f"c{c}-s{s}", category=str(category), subcategory=name) for s, name in enumerate(inner, 1)]
    return Start(items[: config.limit])


def from_images(config: ConstructConfig, folder: Path | None) -> Start:
    """One item for each image of a folder, or of a table with the column image (and category, licence, origin).

    Raises UserError for absent images, and for an image without a licence.
    """
    part = config.images
    for key in ("rows", "subset", "role", "view", "answers"):
        if getattr(part, key) is not None:
            raise UserError(
                f"images.{key}={getattr(part, key)} has no effect on a construction; use limit=, or remove it"
            )
    if folder is not None and part.path is not None and folder.resolve().is_relative_to(Path(part.path).resolve()):
        raise UserError(
            f"output_dir={folder} is inside images.path={part.path}: painted images would be given ones; give another"
        )
    with options_of(Place("images")):
        rows = _image_rows(config)
        rows, missing = drop_missing(rows, part.on_missing_image, "images")
    if missing:  # a result may be shared: it names no folder of this machine
        missing = missing.replace(f"{Path(str(part.path)).absolute()}/", "")
    items = []
    for number, row in enumerate(rows[: config.limit], 1):
        licence = row.columns.get("licence") or config.licence
        if not licence:
            raise UserError(
                f"images: row {row.id} has no licence; give a column `licence`, or licence=<name> for all images"
            )
        item_id = f"i{number:05}"
        items.append(
            Item(
                item_id,
                parent=row.id,
                category=row.category,
                image=_copied(row.images[0], item_id, folder),
                origin=row.columns.get("origin") or f"{row.source}: {row.id}",
                licence=str(licence),
            )
        )
    return Start(items, [missing] if missing else [])


def from_pairs(config: ConstructConfig, folder: Path | None) -> Start:
    """One item for each harmful row of a benchmark; its prompt is the harmful query, its caption the description.

    Rows without an image file stay: rewriting needs only texts. Raises UserError.
    """
    if config.pairs is None:
        raise UserError("source=pairs: give pairs=<a benchmark>, e.g. pairs=vlsbench settings.vlsbench.path=<folder>")
    benchmark = benchmark_of(config.pairs, config.settings.get(config.pairs), "pairs")
    settings = config.settings.get(benchmark.name, BenchmarkSettings())
    with options_of(Place(f"settings.{benchmark.name}")):
        settings = at_root(settings, config.data_root, data_set_of(benchmark.name))
        read = benchmark.every(settings)
        rows = [row for row in select(benchmark, read.rows, settings) if row.role == "harmful"]
        missing = None
        if settings.on_missing_image == "drop":
            rows, missing = drop_missing(rows, "drop", f"pairs={config.pairs}")
    unique = UniqueIds()
    items = [_of_pair(row, unique(_name(row.id)), config, folder) for row in rows[: config.limit]]
    without = sum(item.image is None for item in items)
    facts = [*read.facts, *([missing] if missing else [])]
    if without:
        facts.append(
            f"{without} of {len(items)} images are absent: steps that look at images cannot use these items "
            "(settings.<benchmark>.on_missing_image=drop leaves them out)"
        )
    return Start(items, facts)


def _image_rows(config: ConstructConfig) -> list[Row]:
    part = config.images
    if part.path is None:
        raise UserError("source=images: give images.path=<folder of images, or table with a column image>")
    if Path(part.path).is_dir() and not any(ending_of_name(file.name) in TABLES for file in Path(part.path).iterdir()):
        files = sorted(file for file in Path(part.path).rglob("*") if file.suffix.lower() in IMAGES)
        if not files:
            raise UserError(f"images.path={part.path}: no images ({', '.join(IMAGES)}) and no table in this folder")
        name = Path(part.path).name
        return [Row(str(f.relative_to(part.path)), "", (ImageRef(path=str(f)),), source=name) for f in files]
    names = Columns("images", ("id", "image", "category", "licence", "origin"), part.columns)
    folder = DataFolder.open("images", part)
    rows = []
    for number, record in enumerate(folder.rows(), 1):
        names.see(record)
        given = record.get(names["id"]) not in (None, "")
        row_id = record.name(names["id"]) if given else f"{record.file.stem}-{number}"
        texts = {key: text_column(record, names[key], record.where) for key in ("category", "licence", "origin")}
        columns = {key: texts[key] for key in ("licence", "origin")}
        rows.append(
            Row(
                row_id,
                "",
                (folder.cell(record, names["image"]),),
                source=folder.name,
                category=texts["category"],
                columns=columns,
            )
        )
    names.refuse_absent()
    return rows


def _of_pair(row: Row, item_id: str, config: ConstructConfig, folder: Path | None) -> Item:
    image = row.images[0] if row.images and exists(row.images[0]) else None
    described = row.caption or row.columns.get("image_description")
    return Item(
        item_id,
        parent=row.id,
        category=row.category,
        subcategory=row.columns.get("sub_category"),
        element=described,
        description=described,
        query_leak=row.plain_request,
        image=_copied(image, item_id, folder) if image else None,
        origin=f"{row.source or config.pairs}: {row.id}",
        licence=config.licence,
    )


def _copied(image: ImageRef, item_id: str, folder: Path | None) -> str:
    """Copy an image as it is (a dry run copies nothing); its name has a hash of its content.

    Raises UserError that names the original if it cannot be read.
    """
    load_image(image, f"item {item_id}")
    with open_encoded(image) as file:
        content = file.read()
    ending = Path(str(image.inside or image.path)).suffix.lower()
    name = f"{item_id}-{hashlib.sha256(content).hexdigest()[:8]}{ending if ending in IMAGES else '.png'}"
    if folder is not None and not (folder / GIVEN / name).is_file():
        write_image(folder / GIVEN / name, content)
    return f"{GIVEN}/{name}"


def _name(row_id: str) -> str:
    """A row's id as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", row_id)[:80].strip(".") or "row"

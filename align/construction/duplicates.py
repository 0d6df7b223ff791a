"""The last step of every construction: drop near-duplicates, unchanged twins, empty queries, and
overlap with training sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from align.construction.item import DROPPED, KEPT, Item, Outcome
from align.construction.run import Done
from align.construction.steps.paint import asked
from align.data.assembly import read_source
from align.data.images import load_image
from align.data.overlap import question_hash, text_hash
from align.data.pixels import pixels_of
from align.errors import UserError
from align.rows import ImageRef, Row
from align.settings import ConstructConfig

NAME = "duplicates"
DUPLICATE, UNCHANGED, NO_QUERY = "near_duplicate", "twin_unchanged", "no_query"
BITS = 64
"""Length of the perceptual hash."""


def duplicates(items: Sequence[Item], config: ConstructConfig, folder: Path) -> Done:
    """Keep the first of each group of near-duplicates: the same normalised query about nearly the same image.

    Items whose safe image has the pixels of the unsafe one are dropped, and items that share an image or a query with
    a training set of `exclude`. Raises UserError.
    """
    rows = [row_of(item, folder) for item in items]
    pixels = dict(zip((row.id for row in rows), pixels_of(rows), strict=True))
    overlapping = _overlapping(rows, [_twin(item, folder) for item in items], config)
    repeated = repeats(rows, config.image_distance)
    outcomes = []
    for item in items:
        own = pixels[item.id]
        if not (asked(item) or "").strip():
            outcomes.append(Outcome(item.id, DROPPED, NO_QUERY, "the query is empty"))
        elif item.id in overlapping:
            outcomes.append(Outcome(item.id, DROPPED, *overlapping[item.id]))
        elif item.id in repeated:
            outcomes.append(Outcome(item.id, DROPPED, DUPLICATE, f"of {repeated[item.id]}"))
        elif item.benign_image and own == pixels_of([_twin(item, folder)])[0]:
            outcomes.append(Outcome(item.id, DROPPED, UNCHANGED, "the safe image has the pixels of the unsafe one"))
        else:
            outcomes.append(Outcome(item.id, KEPT, made=(item,)))
    return Done(NAME, tuple(items), tuple(outcomes))


def check_distance(distance: int | None) -> None:
    """Raise UserError for a distance that is not valid, or that needs a package that is absent."""
    if distance is None:
        return
    if not 0 <= distance <= BITS:
        raise UserError(f"image_distance={distance}: expected 0 to {BITS}, or null")
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise UserError(
            "image_distance= needs the package imagehash: pip install 'vsil-align[construct]', or give "
            "image_distance=null to compare pixels only"
        ) from error


def row_of(item: Item, folder: Path) -> Row:
    """An item as a row of a benchmark: its query and its unsafe image, or the description of it."""
    images = (ImageRef(path=str(folder / item.image)),) if item.image else ()
    return Row(
        item.id,
        asked(item) or "",
        images,
        role="harmful",
        harm_in="image" if images else "text",
        category=item.category,
        caption=item.caption or item.description,
    )


def _twin(item: Item, folder: Path) -> Row:
    return Row(item.id, "", (ImageRef(path=str(folder / item.benign_image)),) if item.benign_image else ())


def repeats(rows: Sequence[Row], distance: int | None) -> dict[str, str]:
    """{id of a row: id of the earlier row that it repeats}: the same question about nearly the same
    image.

    Rows without an image repeat each other if their descriptions are equal. `distance` is the
    largest number of different bits of perceptual hashes; None compares pixels only. Raises
    UserError.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(question_hash(row), []).append(row)
    found: dict[str, str] = {}
    for same in (group for group in groups.values() if len(group) > 1):
        keys = _keys(same, distance)
        first: list[int] = []
        for i, row in enumerate(same):
            near = next((j for j in first if _near(keys[i], keys[j], distance)), None)
            if near is None:
                first.append(i)
            else:
                found[row.id] = same[near].id
    return found


def _keys(rows: Sequence[Row], distance: int | None) -> list[Any]:
    """What is compared of each row: its image, or the description of an image that does not exist yet."""
    pixels = pixels_of(rows) if distance is None else [[] for _ in rows]
    return [
        text_hash(row.caption or "") if not row.images else pixels[i] if distance is None else _perceptual(row)
        for i, row in enumerate(rows)
    ]


def _perceptual(row: Row) -> np.ndarray:
    """The 64 bits of an image's perceptual hash (DCT of the grey image, compared with its median)."""
    import imagehash

    return np.asarray(imagehash.phash(load_image(row.images[0], f"item {row.id}")).hash).ravel()


def _near(one: Any, other: Any, distance: int | None) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return int((one != other).sum()) <= (distance or 0)
    return type(one) is type(other) and bool(one == other)


def _overlapping(rows: Sequence[Row], twins: Sequence[Row], config: ConstructConfig) -> dict[str, tuple[str, str]]:
    """{id: (reason, training row)} of items that share an image (also the safe one), or a query
    without an image, with a training set.

    The same query about another image is another request.
    """
    found: dict[str, tuple[str, str]] = {}
    both = [replace(row, images=(*row.images, *twin.images)) for row, twin in zip(rows, twins, strict=True)]
    shown = pixels_of(both) if config.exclude else []
    for name, part in config.exclude.items():
        trained = read_source(part, config.data_root).rows
        images = {one: row.id for row, of_row in zip(trained, pixels_of(trained), strict=True) for one in of_row}
        questions = {question_hash(row): row.id for row in trained if not row.images}
        for row, of_row in zip(rows, shown, strict=True):
            if shared := next((images[one] for one in of_row if one in images), None):
                found.setdefault(row.id, (f"image_of_{name}", f"row {shared}"))
            elif question_hash(row) in questions:
                found.setdefault(row.id, (f"query_of_{name}", f"row {questions[question_hash(row)]}"))
    return found

"""A view decides what of a row the model sees, in training and in evaluation.

image     the row as it is
text      its images dropped
caption   its images dropped, its caption put before the request: the same information in words
shuffled  the images of another item
blank     an even grey of the same size: as many image tokens, nothing to see
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from align.data.images import encode_png, image_size
from align.errors import UserError
from align.rows import VIEWS, ImageRef, Row

READS_IMAGES = ("image", "shuffled", "blank")
"""Views that need the image files; the others do without."""
HIDES_IMAGE = ("text", "shuffled", "blank")
"""Views that leave nothing of what a row's own image shows."""
GREY = (127, 127, 127)


def check_view(view: str, key: str = "view") -> None:
    """Raises UserError for an unknown view."""
    if view not in VIEWS:
        raise UserError(f"{key}={view}: expected one of {', '.join(VIEWS)}")


def show(row: Row, view: str, others: Sequence[Row]) -> Row:
    """The row as the model sees it; `others` are the rows with images that a shuffled row may get one of. Raises UserError.

    A row without image is the same in every view. Which image a shuffled row gets hangs on its id and on `others`.
    """
    if not row.images:
        return replace(row, view=view)
    if view == "image":
        return row
    if view == "text":
        return replace(row, images=(), view=view)
    if view == "caption":
        if row.caption is None:
            raise UserError(f"row {row.id} of {row.source}: view=caption needs a `caption`, and it has none")
        return replace(row, images=(), prompt=f"{row.caption}\n{row.prompt}", view=view)
    if view == "blank":
        return replace(row, images=tuple(_blank(image, row) for image in row.images), view=view)
    return replace(row, images=_foreign(row, others), view=view)


def check_labels(rows: Sequence[Row], view: str, allow_label_conflict: bool) -> int:
    """Count training rows whose only evidence the view removes; an error unless allowed. Raises UserError.

    A harmful row is in conflict where its harm lies only in the image that is hidden; a benign one where it had an image, since
    its answer may be about it.
    """
    unseen = [row.id for row in rows if row.harm_in == "image" and not row.images]
    if unseen:
        raise UserError(
            f"{len(unseen)} training rows say harm_in=image and have no image, first: {', '.join(unseen[:5])}"
        )
    if view not in HIDES_IMAGE:
        return 0
    conflicts = [row.id for row in rows if (row.harm_in == "image" if row.role == "harmful" else row.images)]
    if conflicts and not allow_label_conflict:
        raise UserError(
            f"view={view} hides the only evidence for the answer of {len(conflicts)} training rows (it lies in their image), "
            f"first: {', '.join(conflicts[:5])}; choose other rows or say allow_label_conflict=true"
        )
    return len(conflicts)


def _blank(image: ImageRef, row: Row) -> ImageRef:
    return encode_png(Image.new("RGB", image_size(image, f"row {row.id}"), GREY))


def _foreign(row: Row, others: Sequence[Row]) -> tuple[ImageRef, ...]:
    """The images of a row of another item, drawn with the row's id as the seed."""
    rng = random.Random(f"shuffled {row.id}")
    for _ in range(20):  # nearly always the first is of another item
        other = rng.choice(others) if others else row
        if _is_foreign(row, other):
            return other.images
    foreign = [other for other in others if _is_foreign(row, other)]
    if not foreign:
        raise UserError(
            f"row {row.id} of {row.source}: view=shuffled found no image of another item among {len(others)} rows with images"
        )
    return rng.choice(foreign).images


def _is_foreign(row: Row, other: Row) -> bool:
    items = [one.twin or one.cluster or one.id for one in (row, other)]
    return items[0] != items[1] and len(other.images) == len(row.images) and other.images != row.images


def own_prompt(row: Row) -> str:
    """The request itself, without the caption that the view put before it."""
    return row.prompt.removeprefix(f"{row.caption}\n") if row.view == "caption" else row.prompt

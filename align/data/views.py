"""A view decides what the model sees of a row, in training and in evaluation.

image     the row unchanged
text      the row without its images
caption   the row without its images, with its caption before the request: the same information in words
shuffled  the row with the images of another item
blank     the row with plain grey images of the same size: the same number of image tokens, no content
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from align.data.images import encode_png, image_size
from align.errors import UserError
from align.rows import VIEWS, ImageRef, Row
from align.settings import Part

READS_IMAGES = ("image", "shuffled", "blank")
"""Views that need the image files."""
HIDES_IMAGE = ("text", "shuffled", "blank")
"""Views without any information from the row's own image."""
GREY = (127, 127, 127)


def check_view(view: str, key: str = "view") -> None:
    """Raise UserError for an unknown view."""
    if view not in VIEWS:
        raise UserError(f"{key}={view}: expected one of {', '.join(VIEWS)}")


def show(row: Row, view: str, others: Sequence[Row]) -> Row:
    """The row as the model sees it. A shuffled row gets the images of one of `others`. Raises UserError.

    A row without an image is the same in every view. A shuffled row's images depend only on its id and on `others`.
    """
    if not row.images:
        return replace(row, view=view)
    if view == "image":
        return row
    if view == "text":
        return replace(row.without_images(), view=view)
    if view == "caption":
        if row.caption is None:
            raise UserError(f"row {row.id} of {row.source}: view=caption needs a `caption`, and this row has none")
        return replace(_with_caption(row, row.caption), view=view)
    if view == "blank":
        return replace(row, images=tuple(_blank(image, row) for image in row.images), view=view)
    return replace(row, images=_foreign(row, others), view=view)


def _with_caption(row: Row, caption: str) -> Row:
    """The row with its caption instead of images: before the turn that shows the first of them."""
    words, turns = row.without_images(), row.history
    shows = next((i for i, turn in enumerate(turns) if turn.places), None)
    if shows is None:
        return words.with_text_before(caption)
    turn = replace(words.history[shows], text=f"{caption}\n{turns[shows].text}")
    return replace(words, history=(*words.history[:shows], turn, *words.history[shows + 1 :]))


def check_labels(rows: Sequence[Row], view: str, allow_label_conflict: bool) -> int:
    """Count training rows whose only evidence the view removes. Raises UserError unless this is allowed.

    A harmful row is in conflict if its harm is only in the hidden image; a benign row if it had an image,
    since its response may be about the image.
    """
    unseen = [row.id for row in rows if row.harm_in == "image" and not row.images]
    if unseen:
        raise UserError(
            f"{len(unseen)} training rows have harm_in=image and no image, first: {', '.join(unseen[:5])}; add the "
            "images, or correct harm_in"
        )
    if view not in HIDES_IMAGE:
        return 0
    conflicts = [row.id for row in rows if (row.harm_in == "image" if row.role == "harmful" else row.images)]
    if conflicts and not allow_label_conflict:
        raise UserError(
            f"view={view} hides the only evidence (the image) for the response of {len(conflicts)} training rows, "
            f"first: {', '.join(conflicts[:5])}; select other rows, or set allow_label_conflict=true"
        )
    return len(conflicts)


def _blank(image: ImageRef, row: Row) -> ImageRef:
    return encode_png(Image.new("RGB", image_size(image, f"row {row.id}"), GREY))


def _foreign(row: Row, others: Sequence[Row]) -> tuple[ImageRef, ...]:
    """The images of a row of another item, drawn with the row's id as the seed."""
    rng = random.Random(f"shuffled {row.id}")
    for _ in range(20):  # the first draw is nearly always of another item
        other = rng.choice(others) if others else row
        if _is_foreign(row, other):
            return other.images
    foreign = [other for other in others if _is_foreign(row, other)]
    if not foreign:
        raise UserError(
            f"row {row.id} of {row.source}: view=shuffled found no image of another item among {len(others)} rows "
            "with images; add rows with other images, or use another view"
        )
    return rng.choice(foreign).images


def _is_foreign(row: Row, other: Row) -> bool:
    items = [one.twin or one.cluster or one.id for one in (row, other)]
    return items[0] != items[1] and len(other.images) == len(row.images) and other.images != row.images


def own_prompt(row: Row) -> str:
    """The request itself, without the caption that the view put before it."""
    return row.prompt.removeprefix(f"{row.caption}\n") if row.view == "caption" else row.prompt


def captioned(name: str, part: Part, n: int, view: str) -> set[int]:
    """The indices of the rows that are shown as captions, by the part's `caption_share`."""
    if not 0 <= part.caption_share <= 1:
        raise UserError(f"data.{name}.caption_share={part.caption_share}: expected a share from 0 to 1")
    if part.caption_share and view != "image":
        raise UserError(f"data.{name}.caption_share={part.caption_share}: needs view=image, found view={view}")
    return set(random.Random(f"captions {part.seed}").sample(range(n), round(part.caption_share * n)))

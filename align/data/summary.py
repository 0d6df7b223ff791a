"""A dataset's summary in one JSON object: rows, roles, location of harm, images and their problems, duplicates."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.console import Report
from align.data.files.image_bytes import exists
from align.data.overlap import question_hash
from align.data.pixels import Found, hashes_of
from align.errors import UserError
from align.rows import HARM_IN, ROLES, Row

ABSENT = "absent"


@dataclass
class Looked:
    """Rows and the state of their images."""

    rows: Sequence[Row]
    pixels: Found
    """Pixel hashes of existing images."""
    missing: list[str]
    """Names of absent images."""

    @property
    def unreadable(self) -> list[UserError]:
        """Errors of images that exist and cannot be read."""
        return [digest for digest in self.pixels.values() if isinstance(digest, UserError)]

    def shown(self, row: Row) -> tuple[str, ...]:
        """A row's images: pixel hashes, or the names of images without a hash."""
        return tuple(
            digest if isinstance(digest := self.pixels.get(image), str) else str(image.name) for image in row.images
        )


def look(rows: Sequence[Row], report: Report | None = None) -> Looked:
    """Decode every image that exists."""
    there = {image: exists(image) for row in rows for image in row.images}
    missing = [str(image.name) for image, found in there.items() if not found]
    shown = [replace(row, images=tuple(image for image in row.images if there[image])) for row in rows]
    return Looked(rows, hashes_of(shown, report), missing)


def summarise(what: dict[str, str], looked: Looked, facts: Sequence[str]) -> dict[str, Any]:
    """The object printed by `align data summary=true`; `what` is {"source": name} or {"benchmark": name}."""
    rows = looked.rows
    roles, harms = Counter(row.role for row in rows), Counter(row.harm_in for row in rows)
    asked = Counter((question_hash(row), *looked.shown(row)) for row in rows)
    return {
        **what,
        "rows": len(rows),
        "roles": {role: roles[role] for role in ROLES},
        "harm_in": {place: harms[place] for place in HARM_IN},
        "with_image": sum(bool(row.images) for row in rows),
        "images": len({image for row in rows for image in row.images}),
        "missing_images": len(looked.missing),
        "unreadable_images": len(looked.unreadable),
        "duplicates": len(rows) - len(asked),
        "categories": dict(Counter(str(row.category) for row in rows if row.category is not None).most_common()),
        "fingerprint": _fingerprint(looked),
        "facts": list(facts),
    }


def _fingerprint(looked: Looked) -> str:
    """Sixteen hex digits of all texts, roles and pixels, in order; an image without pixels counts as `absent`.

    Ids do not count: in a file without ids they are derived from the file's name.
    """
    digest = hashlib.sha256()
    for row in looked.rows:
        answers = (row.response, row.chosen, row.rejected, row.harmful_response)
        pixels = [found if isinstance(found := looked.pixels.get(image), str) else ABSENT for image in row.images]
        turns = [*map(str, row.history), *row.places]
        told = json.dumps([row.prompt, row.request, row.role, row.harm_in, row.caption, *answers, pixels, *turns])
        digest.update(told.encode())
    return digest.hexdigest()[:16]

"""The training data of a run: its parts read, sampled, viewed, checked and put together."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from align.catalog import SOURCES, resolve
from align.data.images import drop_missing, pixel_hash
from align.data.views import apply_view, check_labels
from align.errors import UserError
from align.rows import Row
from align.settings import RunConfig


@dataclass
class TrainingData:
    """Rows as the model sees them, and the facts that a manifest records."""

    rows: list[Row]
    parts: dict[str, int]
    """Rows of each part, by its name in the recipe."""
    facts: list[str]
    """What was left out or allowed, each a line to print."""

    def manifest(self) -> dict[str, Any]:
        """What a manifest records, and by which a run is recognised."""
        with_image = sum(bool(row.images) for row in self.rows)
        return {
            "fingerprint": self.fingerprint,
            "parts": self.parts,
            "rows": len(self.rows),
            "with_image": with_image,
            "facts": self.facts,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of everything that is trained on: texts, roles and decoded pixels, in order."""
        digest = hashlib.sha256()
        for row in self.rows:
            record = row.to_dict() | {"images": [pixel_hash(image, f"row {row.id}") for image in row.images]}
            digest.update(json.dumps(record, sort_keys=True).encode())
        return digest.hexdigest()[:16]


def training_data(config: RunConfig) -> TrainingData:
    """Read every part of a run's data. Raises UserError."""
    if not config.data:
        raise UserError(
            f"recipe {config.recipe}: no data; name a suite, or give data.<part>.source= and data.<part>.path="
        )
    rows: list[Row] = []
    parts, facts = {}, []
    for name, part in config.data.items():
        read = resolve(f"data.{name}.source", part.source, SOURCES)(part)
        if part.rows is not None and part.rows < 1:
            raise UserError(f"data.{name}.rows={part.rows}: expected at least 1")
        if part.rows is not None and len(read) > part.rows:
            # A seeded sample in the file's own order.
            chosen = sorted(random.Random(part.seed).sample(range(len(read)), part.rows))
            read = [read[i] for i in chosen]
        conflicts = check_labels(read, config.view, config.allow_label_conflict)
        if conflicts:
            facts.append(
                f"data.{name}: view={config.view} hides the only evidence of {conflicts} rows (allow_label_conflict: true)"
            )
        seen, missing = drop_missing(apply_view(read, config.view), part.on_missing_image, f"data.{name}")
        if missing:
            facts.append(missing)
        if not seen:
            raise UserError(f"data.{name}: no rows left")
        parts[name] = len(seen)
        rows += [replace(row, id=f"{name}/{row.id}") for row in seen]
    if config.view == "image" and not any(row.images for row in rows):
        raise UserError(
            f"view=image, but none of the {len(rows)} training rows has an image; check the column `image`, or set view=text"
        )
    repeated = [row_id for row_id, count in Counter(row.id for row in rows).items() if count > 1]
    if repeated:
        raise UserError(f"row id {repeated[0]!r} stands twice in the training data; ids must be unique within a part")
    return TrainingData(rows, parts, facts)

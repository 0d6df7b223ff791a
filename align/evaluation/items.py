"""Items, which rates count. An item is a row; in a twin benchmark it is a pair of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from align.evaluation.verdicts import is_good, role_of, twin_label
from align.rows import Row


@dataclass(frozen=True)
class Item:
    """One item with its label, as in `items.<judge>.jsonl`."""

    id: str
    label: str
    good: bool
    cluster: str
    """Equal for items that are not independent (one image, several queries)."""
    category: str | None = None
    asks: str | None = None
    """A hash of what the row asks; None for pairs, and in folders of earlier versions."""
    shows: str | None = None
    """The same for its image."""


def asks(row: Row) -> str:
    """Hash of a row's prompt, plain request and role, and of earlier requests; independent of the view and of
    the model's responses.
    """
    return _hash([*row.requests, row.prompt if row.request is None else row.request, row.role])


def shows(pixels: Sequence[str] | None) -> str | None:
    """Hash of a row's images, from the `pixel_hash` of each; None if images were not read."""
    return None if pixels is None else _hash(pixels)


def _hash(told: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def items_of(
    kind: str,
    rows: Iterable[Row],
    labels: Mapping[str, str],
    clusters: Mapping[str, str],
    pixels: Mapping[str, Sequence[str]] | None = None,
) -> list[Item]:
    """Items of a benchmark of `kind` from {row id: label} and {row id: cluster}.

    A pair has the cluster and category of its unsafe row. `pixels` is {row id: `pixel_hash` of each
    image}, if images were read.
    """
    if kind != "twin":
        seen = pixels or {}
        return [
            replace(
                _item(kind, row.id, labels[row.id], clusters[row.id], row.category),
                asks=asks(row),
                shows=shows(seen.get(row.id)),
            )
            for row in rows
        ]
    pairs: dict[str, dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault(str(row.twin), {})[row.role] = row
    return [
        _item(
            kind,
            twin,
            twin_label({role: labels[row.id] for role, row in pair.items()}),
            clusters[pair["harmful"].id],
            pair["harmful"].category,
        )
        for twin, pair in pairs.items()
    ]


def _item(kind: str, item_id: str, label: str, cluster: str, category: str | None) -> Item:
    return Item(item_id, label, is_good(label, role_of(kind)), cluster, category)

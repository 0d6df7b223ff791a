"""Items: what a rate is a share of. An item is a row, or in a twin set a pair of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from align.evaluation.verdicts import is_good, role_of, twin_label
from align.rows import Row


@dataclass(frozen=True)
class Item:
    """One item with its one label, as `items.<judge>.jsonl` keeps it."""

    id: str
    label: str
    good: bool
    cluster: str
    """Items that are not independent (one image, several queries) share it."""
    category: str | None = None
    asks: str | None = None
    """`asks` of the row; None of a pair of rows, and in folders of earlier versions. Likewise the next."""
    shows: str | None = None


def asks(row: Row) -> str:
    """A hash of what a row asks, in the prompt and in plain words, and of its role; the row as it is, whatever view a model saw."""
    return _hash([row.prompt, row.plain_request, row.role])


def shows(pixels: Sequence[str] | None) -> str | None:
    """A hash of what a row shows, from the `pixel_hash` of each of its images; None where nobody looked at them."""
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
    """The items of a set of that kind from {row id: label} and {row id: cluster}. A pair goes by its unsafe image.

    `pixels` is {row id: `pixel_hash` of each of its images}, where they were looked at.
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

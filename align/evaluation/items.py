"""Items: what a rate is a share of. An item is a row, or in a twin set a pair of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


def items_of(kind: str, rows: Iterable[Row], labels: Mapping[str, str], clusters: Mapping[str, str]) -> list[Item]:
    """The items of a set of that kind from {row id: label} and {row id: cluster}. A pair goes by its unsafe picture."""
    if kind != "twin":
        return [_item(kind, row.id, labels[row.id], clusters[row.id], row.category) for row in rows]
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

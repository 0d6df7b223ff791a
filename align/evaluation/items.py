"""Items: what a rate is a share of. An item is a row, or in a twin set a pair of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from align.evaluation.verdicts import is_good, role_of, twin_label
from align.rows import Row


@dataclass(frozen=True)
class Item:
    """One item with its one label."""

    id: str
    label: str
    good: bool
    cluster: str
    """Items that are not independent (one image, several queries) share it."""


def asked(row: Row) -> dict[str, Any]:
    """What `rows.jsonl` keeps of a row that was asked, so that numbers can be made from the folder alone."""
    return {
        "id": row.id,
        "role": row.role,
        "twin": row.twin,
        "cluster": row.cluster or row.id,
        "category": row.category,
    }


def items_of(kind: str, rows: Iterable[dict[str, Any]], labels: Mapping[str, str]) -> list[Item]:
    """Rows as `asked` gives them and {row id: label} -> the items of a set of that kind. A pair goes by its unsafe picture."""
    if kind != "twin":
        return [
            Item(row["id"], label, is_good(label, role_of(kind)), row["cluster"])
            for row in rows
            for label in [labels[row["id"]]]
        ]
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault(row["twin"], {})[row["role"]] = row
    items = []
    for twin, pair in pairs.items():
        label = twin_label({role: labels[row["id"]] for role, row in pair.items()})
        items.append(Item(twin, label, is_good(label, role_of(kind)), pair["harmful"]["cluster"]))
    return items

"""The accuracy of a reward model on the pairs that were held out from its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.evaluation.metrics import proportion_interval
from align.methods.held_out import Pair


def accuracy_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """{n, accuracy, low, high, margin, by_category} for the manifest (docs/formats.md); n alone without pairs.

    The interval is 95%, clustered by item.
    """
    if not pairs:
        return {"n": 0}
    categories = sorted({str(pair.row.category) for pair in pairs})
    by_category = {name: _rate([pair for pair in pairs if str(pair.row.category) == name]) for name in categories}
    margin = sum(pair.chosen - pair.rejected for pair in pairs) / len(pairs)
    return _rate(pairs) | {"margin": round(margin, 4), "by_category": by_category}


def _rate(pairs: Sequence[Pair]) -> dict[str, Any]:
    right = [pair.right for pair in pairs]
    low, high = proportion_interval(right, [pair.row.item or pair.row.id for pair in pairs])
    return {"n": len(pairs), "accuracy": sum(right) / len(right), "low": low, "high": high}

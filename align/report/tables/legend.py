"""Legends of tables: what its words and numbers mean, of what really is in its cells. A term in backticks is in the table as written."""

from __future__ import annotations

from collections.abc import Sequence

from align.evaluation.metrics import FEW_CLUSTERS
from align.evaluation.summary import MAX_INVALID
from align.report.paper import SOURCE
from align.report.tables.table import Cell, Line

INTERVALS = (
    f"95% intervals. One seed: Wilson's, or a bootstrap over images (of JailbreakV: over requests) where items share one; with fewer than "
    f"{FEW_CLUSTERS} images, or where all items agree, Wilson's with as many items as images. Several seeds: over images and seeds"
)
COUNTED = (
    "A rate is a share of the `n` items that have a verdict (`n` of all items, where some have none). An item is a row, in a twin set a "
    "pair. An incoherent answer is never good"
)


def legend(lines: Sequence[Line]) -> list[str]:
    """Notes on words that a cell has: withheld rates, the paper's numbers."""
    cells = [cell for line in lines for cell in line.cells]
    return [*_withheld([cell.text for cell in cells if cell.text.startswith("withheld")]), *_paper(cells)]


def _withheld(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    bounds = "; in parentheses the rate if all of these were bad, or good" if any("(" in text for text in texts) else ""
    return [f"`withheld`: more than {MAX_INVALID:.0%} of the items have no verdict{bounds}"]


def _paper(cells: Sequence[Cell]) -> list[str]:
    numbers = [cell.paper for cell in cells if cell.paper]
    if not numbers:
        return []
    star = "; `*`: as printed it cannot be, or may not be, right" if any(number.doubt for number in numbers) else ""
    return [f"`paper`: what {SOURCE} prints, not measured here{star}"]

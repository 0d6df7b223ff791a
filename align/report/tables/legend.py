"""Legends of tables: meaning of the words and numbers in the cells.

Terms in backticks are literal.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.evaluation.metrics import FEW_CLUSTERS
from align.evaluation.summary import MAX_INVALID
from align.report.paper import SOURCE
from align.report.tables.table import Cell, Line

INTERVALS = (
    "95% intervals. One seed: Wilson's, or a bootstrap over images (for JailbreakV: over requests) if items share one; "
    f"with fewer than {FEW_CLUSTERS} images, or if all items agree, Wilson's with the number of images as n. Several "
    "seeds: over images and seeds"
)
COUNTED = (
    "A rate is a share of the `n` items that have a verdict (`n` of all items, if some have none). An item is a row; "
    "in a twin benchmark it is a pair. An incoherent response is never good"
)


def legend(lines: Sequence[Line]) -> list[str]:
    """Notes on withheld rates and the paper's numbers, if cells have them."""
    cells = [cell for line in lines for cell in line.cells]
    return [*_withheld([cell for cell in cells if cell.withheld]), *_paper(cells)]


def _withheld(cells: Sequence[Cell]) -> list[str]:
    if not cells:
        return []
    bounds = (
        "; in parentheses the rate if all of these are bad, and if all are good"
        if any(cell.bounded for cell in cells)
        else ""
    )
    return [f"`withheld`: more than {MAX_INVALID:.0%} of the items have no verdict{bounds}"]


def _paper(cells: Sequence[Cell]) -> list[str]:
    numbers = [cell.paper for cell in cells if cell.paper]
    if not numbers:
        return []
    star = "; `*`: the printed number is wrong, or may be" if any(number.doubt for number in numbers) else ""
    return [f"`paper`: number printed in {SOURCE}, not measured here{star}"]

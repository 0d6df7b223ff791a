"""Placement of names next to marks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.report.page.figures.marks import Look, marker
from align.report.page.svg import INK

NEAR = 9.0
"""Distance in percent within which marks share a list of names."""


@dataclass(frozen=True)
class Mark:
    """A mark of a panel whose axes run from 0 to 100, with its name."""

    x: float
    y: float
    name: str
    look: Look
    reach: tuple[float, float] | None = None
    """Horizontal ends of its interval."""

    @property
    def ends(self) -> tuple[float, float]:
        """Horizontal begin and end."""
        return self.reach or (self.x, self.x)


def in_figure(name: str) -> str:
    """A name cut to the room in a figure; tooltips and tables show it in full."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


LONGEST = 34
"""Most characters of a name in a figure."""


def name_marks(axis: Any, marks: Sequence[Mark]) -> None:
    """Write names next to marks; close marks share a list with a small copy of each mark."""
    if len(marks) > MOST_NAMED:
        axis.set_title(f"{axis.get_title(loc='left')} ({len(marks)} arms; point at a mark to see its name)", fontsize=9)
        return
    taken = [_Box(mark.ends[0] - 2, mark.y - 2, mark.ends[1] + 2, mark.y + 2) for mark in marks]
    for group in sorted(_lying_together(marks), key=len, reverse=True):
        box = _free_place(axis, group, taken)
        taken.append(box)
        for i, mark in enumerate(sorted(group, key=lambda mark: (-mark.y, mark.x, mark.name))):
            height = box.top - (i + 0.5) * _line_height(axis)
            if len(group) > 1:
                axis.plot([box.left + 1.5], [height], **marker(mark.look, 5), clip_on=False)
            axis.text(
                box.left + (4 if len(group) > 1 else 0),
                height,
                mark.name,
                va="center_baseline",
                fontsize=FONT,
                color=INK,
            )


FONT = 8.5
MOST_NAMED = 30
"""Most marks of a panel with names; more names would hide the marks."""


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: _Box) -> float:
        """Area of the overlap."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


def _lying_together(marks: Sequence[Mark]) -> list[list[Mark]]:
    groups: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: (mark.y, mark.x)):
        near = next((of for of in groups if any(max(abs(mark.x - m.x), abs(mark.y - m.y)) < NEAR for m in of)), None)
        if near is None:
            groups.append([mark])
        else:
            near.append(mark)
    return groups


def _free_place(axis: Any, group: Sequence[Mark], taken: Sequence[_Box]) -> _Box:
    """The place next to a group where a list of names covers least: left or right, any height."""
    width = max(len(mark.name) for mark in group) * FONT * 0.56 / _points(axis)[0] + (6 if len(group) > 1 else 1)
    height = len(group) * _line_height(axis)
    edges = min(m.ends[0] for m in group), max(m.ends[1] for m in group), statistics.fmean(m.y for m in group)
    places = [
        _Box(left, bottom, left + width, bottom + height)
        for left in (edges[1] + 3, edges[0] - 3 - width, edges[0] - width / 2)
        for up in (0.0, 0.5, -0.5, 1.0, -1.0, 1.6, -1.6)
        for bottom in [min(max(edges[2] - height / 2 + up * (height / 2 + 5), -5.0), 105.0 - height)]
    ]

    def covered(box: _Box) -> float:
        outside = max(box.right - 108, 0) + max(-6 - box.left, 0)
        return sum(box.shared(other) for other in taken) + 100 * outside

    return min(places, key=covered)


def _points(axis: Any) -> tuple[float, float]:
    """-> (width, height) of one percent in points (1/72 inch)."""
    place = axis.get_position()
    figure = axis.figure
    return 72 * figure.get_figwidth() * place.width / 112, 72 * figure.get_figheight() * place.height / 112


def _line_height(axis: Any) -> float:
    return FONT * 1.4 / _points(axis)[1]

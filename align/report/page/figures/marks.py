"""Style of marks, layout of panels, placement of names."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from align.report.figure import COLOURS
from align.report.names import ARMS, METHODS, is_control, measures, sets_of
from align.report.page.svg import INK, PAPER, STYLE, svg
from align.report.run_results import judge_of
from align.report.tables.rates import labels

Row = dict[str, Any]
Draw = TypeVar("Draw", bound=Callable[..., Any])
GREYS = ("#8C8C8C", "#6E6E6E", "#ABABAB")
"""For rows without training; visible on white and on black."""
NEAR = 9.0
"""Distance in percent within which marks share a list of names."""
TEXT_ALONE = ("text", "caption")
"""Views without an image."""
PANEL = 3.9
"""Width of a square panel, inches."""


@dataclass(frozen=True)
class Figure:
    """An SVG figure and its caption."""

    image: str
    caption: str


@dataclass(frozen=True)
class Look:
    """Style of a row's mark."""

    colour: str
    marker: str
    filled: bool


def styled(draw: Draw) -> Draw:
    """Run a drawing function in the page's style, without a display."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        import matplotlib as mpl

        mpl.use("Agg")
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn  # type: ignore[return-value]


def looks(rows: Sequence[Row]) -> Callable[[Row], Look]:
    """Style of each row: a colour for each method or carrier of harm.

    Filled: trained with images of harm; hollow: without images; grey: not trained here.
    """
    trained = [row for row in rows if row["method"]]
    kinds = sorted({_kind(row) for row in trained}, key=lambda kind: [*METHODS, *ARMS, kind].index(kind))
    untrained = list(dict.fromkeys(row["name"] for row in rows if not row["method"]))

    def look(row: Row) -> Look:
        if not row["method"]:
            return Look(GREYS[untrained.index(row["name"]) % len(GREYS)], "D", True)
        place = kinds.index(_kind(row))
        marker = "osv^P"[place // len(COLOURS) % 5]
        return Look(COLOURS[place % len(COLOURS)], marker, row["view"] not in TEXT_ALONE)

    return look


def _kind(row: Row) -> str:
    if row["track"] == "controlled":
        return str(row["name"])
    prefix, _, method = row["name"].partition("_")
    return method if prefix in ("t", "mm") and method in METHODS else str(row["name"])


def sets_of_kind(rows: Sequence[Row], kind: str) -> list[str]:
    """Benchmarks of a kind on which some row was evaluated, without controls."""
    return [
        name
        for name in sets_of(rows)
        if not is_control(name) and any(row["results"].get(name, {}).get("kind") == kind for row in rows)
    ]


def rate_name(rows: Sequence[Row], sets: Sequence[str], names: Mapping[str, str]) -> str:
    """Name of the rates of rows on benchmarks, from `names` by kind.

    refusal_match counts refusals.
    """
    results = [row["results"][name] for row in rows for name in sets if name in row["results"]]
    return measures(results, dict(names)) or "rate"


def said(result: Mapping[str, Any]) -> str:
    """A rate with its interval, as text of a tooltip."""
    return f"{100 * result['rate']:.1f} [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def panels(count: int, at_most: int, width: float, height: float) -> tuple[Any, Sequence[Any]]:
    """-> (figure, `count` axes), `at_most` per line, each `width` by `height` inches."""
    from matplotlib import pyplot as plt

    columns = min(at_most, count)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(width * columns, height * lines), squeeze=False, layout="tight"
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def of_one_judge(rows: Sequence[Row], sets: Sequence[str]) -> tuple[list[Row], list[str]]:
    """-> (rows judged as most rows are, names of the others): one figure must not mix judges."""
    label = labels(rows)
    judged = [
        tuple(judge_of(row["results"][name]) if name in row["results"] else None for name in sets) for row in rows
    ]
    whole = [of for of in judged if None not in of]
    most = max(whole, key=whole.count) if whole else None
    others = [label(row) for row, of in zip(rows, judged, strict=True) if None not in of and of != most]
    return [row for row, of in zip(rows, judged, strict=True) if of == most], others


def left_out(names: Sequence[str]) -> str:
    """A sentence for the caption; empty if nothing was left out."""
    return (
        f" Not drawn, because they have another judge, or other judge settings: {', '.join(dict.fromkeys(names))}."
        if names
        else ""
    )


def square_panels(count: int) -> tuple[Any, Sequence[Any]]:
    """-> (figure, `count` axes), nearly square panels."""
    few = count in (1, 2, 4)
    size = PANEL * (1.25 if few else 1.0)
    return panels(count, 2 if few else 3, size, 0.88 * size)


def marker(look: Look, size: float) -> dict[str, Any]:
    """Arguments of a mark for matplotlib."""
    face = look.colour if look.filled else PAPER
    return {
        "marker": look.marker,
        "markersize": size,
        "markerfacecolor": face,
        "markeredgecolor": look.colour,
        "markeredgewidth": 1.8,
    }


def mark_rates(axis: Any, results: tuple[Any, Any], look: Look, gid: str) -> None:
    """Draw a mark at two rates, with the interval of each."""
    (x, y) = results
    errors = [[[max(100 * (of["rate"] - of["low"]), 0)], [max(100 * (of["high"] - of["rate"]), 0)]] for of in (x, y)]
    axis.errorbar(
        [100 * x["rate"]],
        [100 * y["rate"]],
        errors[1],
        errors[0],
        fmt="none",
        ecolor=look.colour,
        elinewidth=1,
        alpha=0.8,
    )
    (mark,) = axis.plot([100 * x["rate"]], [100 * y["rate"]], **marker(look, 8))
    mark.set_gid(gid)


def to_hundred(axis: Any) -> None:
    """Set both axes to 0 to 100 percent."""
    axis.set_xlim(-6, 106)
    axis.set_ylim(-6, 106)
    axis.set_xticks(range(0, 101, 20))
    axis.set_yticks(range(0, 101, 20))
    axis.grid(True)
    axis.set_axisbelow(True)


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


def spread(ends: Sequence[tuple[float, Row]]) -> list[tuple[float, Row]]:
    """Sort the ends of lines by height and move them apart, so that names can be read."""
    apart, placed = 7.5, list[tuple[float, Row]]()
    for height, row in sorted(ends, key=lambda end: end[0]):
        floor = placed[-1][0] + apart if placed else -100.0
        placed.append((max(height, floor), row))
    over = max((placed[-1][0] - 104) if placed else 0, 0)
    return [(height - over, row) for height, row in placed]


def finish(figure: Any, name: str, alternative: str, tips: Mapping[str, str]) -> str:
    """Convert a finished figure to SVG and close it."""
    from matplotlib import pyplot as plt

    text = svg(figure, name, alternative, tips)
    plt.close(figure)
    return text

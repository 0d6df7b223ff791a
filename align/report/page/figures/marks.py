"""Style of marks, layout of panels, placement of names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from align.report.figure import COLOURS
from align.report.names import ARMS, METHODS, is_control, measures, sets_of
from align.report.page.svg import PAPER, STYLE, svg
from align.report.run_results import judge_of
from align.report.tables.rates import labels

Row = dict[str, Any]
Draw = TypeVar("Draw", bound=Callable[..., Any])
GREYS = ("#8C8C8C", "#6E6E6E", "#ABABAB")
"""For rows without training; visible on white and on black."""
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

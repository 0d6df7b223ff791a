"""Scatter plots of arms: leaky against leak-free, and safety against answered benign requests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from align.report.findings import Findings
from align.report.page.figures.marks import (
    Figure,
    Row,
    finish,
    left_out,
    looks,
    mark_rates,
    marker,
    of_one_judge,
    rate_name,
    said,
    sets_of_kind,
    square_panels,
    styled,
    to_hundred,
)
from align.report.page.figures.names import Mark, in_figure, name_marks
from align.report.page.svg import INK, RULE
from align.report.tables.rates import labels

LEAKY, FREE, HARMLESS = "danger in the text", "danger only in the image", "benign requests"
RATES = {"vsil": "safe responses", "vsil_free": "safe responses", "benign": "answered"}


@styled
def leak_scatter(found: Findings) -> Figure | None:
    """Leaky against leak-free: a panel for each track, model and pair of benchmarks."""
    panels = [
        (title, leaky, free, rows)
        for title, rows in _by_model(found)
        for free in sets_of_kind(rows, "vsil_free")
        for leaky in sets_of_kind(rows, "vsil")
    ]
    if not panels:
        return None
    figure, axes = square_panels(len(panels))
    tips: dict[str, str] = {}
    others: list[str] = []
    named: list[tuple[Any, list[Mark]]] = []
    for number, (axis, (title, leaky, free, rows)) in enumerate(zip(axes, panels, strict=True)):
        look, label = looks(rows), labels(rows)
        rows, of_others = of_one_judge(rows, [leaky, free])
        others += of_others
        axis.set_title(in_figure(title))
        axis.set_xlabel(_axis(LEAKY, rows, [leaky]))
        axis.set_ylabel(_axis(FREE, rows, [free]))
        axis.plot([0, 100], [0, 100], color=RULE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        marks = []
        for i, row in enumerate(rows):
            x, y = row["results"].get(leaky), row["results"].get(free)
            if x and y and None not in (x["rate"], y["rate"]):
                gid = f"p{number}-{i}"
                tips[gid] = f"{label(row)}: {leaky} {said(x)}, {free} {said(y)}"
                mark_rates(axis, (x, y), look(row), gid)
                reach = 100 * x["low"], 100 * x["high"]
                marks.append(Mark(100 * x["rate"], 100 * y["rate"], in_figure(label(row)), look(row), reach))
        to_hundred(axis)
        named.append((axis, marks))
    caption = (
        "Horizontal: the rate where the text shows the danger. Vertical: the rate where only the image shows it. Bars "
        "are 95% intervals. On the dashed line both rates are equal; an arm below the line protects more where the "
        "text shows the danger. Hollow: harmful rows without images; filled: with images; grey: not trained here."
    ) + left_out(others)
    return _with_names(figure, named, "scatter", caption, tips)


@styled
def pareto(found: Findings) -> Figure | None:
    """Leak-free safety, answered benign requests and ability: which arms are Pareto optimal."""
    panels = [
        (title, rows)
        for title, rows in _by_model(found)
        if sets_of_kind(rows, "benign") and sets_of_kind(rows, "vsil_free")
    ]
    if not panels:
        return None
    figure, axes = square_panels(len(panels))
    tips: dict[str, str] = {}
    others: list[str] = []
    best: list[str] = []
    named: list[tuple[Any, list[Mark]]] = []
    for number, (axis, (title, rows)) in enumerate(zip(axes, panels, strict=True)):
        free, benign, ability = (sets_of_kind(rows, kind) for kind in ("vsil_free", "benign", "ability"))
        look, label = looks(rows), labels(rows)
        rows, of_others = of_one_judge(rows, [*free, *benign])
        others += of_others
        axis.set_title(in_figure(title))
        axis.set_xlabel(_axis(HARMLESS, rows, benign))
        axis.set_ylabel(_axis(FREE, rows, free))
        values = {
            i: (x, y, _mean(row, ability))
            for i, row in enumerate(rows)
            if (x := _mean(row, benign)) is not None and (y := _mean(row, free)) is not None
        }
        front = _front(values)
        marks = []
        for i, (x, y, able) in values.items():
            gid, name = f"p{number}-{i}", in_figure(label(rows[i])) + ("" if able is None else f" ({able:.0f})")
            rates = f"{rate_name(rows, benign, RATES)} {x:.1f}, {rate_name(rows, free, RATES)} {y:.1f}"
            tips[gid] = f"{label(rows[i])}: {rates}" + ("" if able is None else f", ability {able:.1f}")
            (mark,) = axis.plot([x], [y], **marker(look(rows[i]), 8))
            mark.set_gid(gid)
            if i in front:
                axis.plot([x], [y], "o", markersize=15, markerfacecolor="none", markeredgecolor=INK, zorder=3)
            marks.append(Mark(x, y, name, look(rows[i])))
        best.append(f"{', '.join(label(rows[i]) for i in sorted(front))} ({title})")
        to_hundred(axis)
        named.append((axis, marks))
    caption = (
        "Vertical: the rate where only the image shows the danger. Horizontal: the rate of benign requests that are "
        "answered; an arm that refuses them is on the left. In parentheses: ability in %, if a benchmark of this "
        "package measured it. Ringed: no other arm is at least as good in all of these and better in one: "
        f"{'; '.join(best)}. Several benchmarks of a kind: their mean; intervals are in the tables."
    ) + left_out(others)
    return _with_names(figure, named, "pareto", caption, tips)


def _axis(where: str, rows: Sequence[Row], sets: Sequence[str]) -> str:
    return f"{where}: {rate_name(rows, sets, RATES)}, %\n({in_figure(', '.join(sets))})"


def _with_names(
    figure: Any, named: Sequence[tuple[Any, list[Mark]]], name: str, caption: str, tips: Mapping[str, str]
) -> Figure:
    figure.canvas.draw()  # sets the sizes of the panels
    for axis, marks in named:
        name_marks(axis, marks)
    return Figure(finish(figure, name, caption, tips), caption)


def _by_model(found: Findings) -> list[tuple[str, list[Row]]]:
    """-> (title of its panels, its rows) of each track and model."""
    return [
        (f"{track.capitalize()} track, {model}", [row for row in rows if row["model"] == model])
        for track in found.tracks
        for rows in [[arm.row for arm in found.of_track(track).arms]]
        for model in dict.fromkeys(row["model"] for row in rows)
    ]


def _front(values: Mapping[int, Sequence[float | None]]) -> set[int]:
    """Indices on the Pareto front; an unmeasured value counts as the lowest."""
    known = {i: [-1.0 if one is None else one for one in of] for i, of in values.items()}

    def beaten(i: int) -> bool:
        others = (of for j, of in known.items() if j != i)
        return any(all(b >= a for a, b in zip(known[i], of, strict=True)) and of != known[i] for of in others)

    return {i for i in known if not beaten(i)}


def _mean(row: Row, sets: Sequence[str]) -> float | None:
    found = [row["results"].get(name) for name in sets]
    rates = [result["rate"] for result in found if result and result["rate"] is not None]
    return 100 * statistics.fmean(rates) if rates and len(rates) == len(sets) else None

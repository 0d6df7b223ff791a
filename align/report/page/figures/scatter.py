"""Arms as marks between two rates: leaky against leak-free, and safety against answers to harmless requests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from align.report.findings import Findings
from align.report.page.figures.marks import (
    Figure,
    Mark,
    Row,
    finish,
    in_figure,
    left_out,
    looks,
    mark_rates,
    marker,
    name_marks,
    of_one_judge,
    rate_name,
    said,
    sets_of_kind,
    square_panels,
    styled,
    to_hundred,
)
from align.report.page.svg import INK, RULE
from align.report.tables.rates import labels

LEAKY, FREE, HARMLESS = "the text tells", "only the image tells", "harmless requests"
RATES = {"vsil": "safe answers", "vsil_free": "safe answers", "benign": "answered"}


@styled
def leak_scatter(found: Findings) -> Figure | None:
    """Leaky against leak-free: a panel for each track, model and pair of sets."""
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
        "Right: the rate where the text tells of the danger. Up: the rate where only the image does. Each has its 95% interval. On the "
        "dashed line both are equal; an arm below it protects more where the text tells. Hollow: harmful rows without images; filled: with "
        "images; grey: not trained here."
    ) + left_out(others)
    return _with_names(figure, named, "scatter", caption, tips)


@styled
def pareto(found: Findings) -> Figure | None:
    """Safety where only the image shows the danger, answers to harmless requests, and ability: which arms no other beats in all."""
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
        "Up: the rate where only the image shows the danger. Right: the rate on harmless requests; an arm that refuses them is on the "
        "left. In parentheses ability in %, where one of our own sets measured it. Ringed: no other arm is at least as good in all of "
        f"these and better in one: {'; '.join(best)}. Means where there are several sets of a kind; intervals are in the tables."
    ) + left_out(others)
    return _with_names(figure, named, "pareto", caption, tips)


def _axis(where: str, rows: Sequence[Row], sets: Sequence[str]) -> str:
    return f"{where}: {rate_name(rows, sets, RATES)}, %\n({in_figure(', '.join(sets))})"


def _with_names(
    figure: Any, named: Sequence[tuple[Any, list[Mark]]], name: str, caption: str, tips: Mapping[str, str]
) -> Figure:
    figure.canvas.draw()  # only now it is known how large the panels are
    for axis, marks in named:
        name_marks(axis, marks)
    return Figure(finish(figure, name, caption, tips), caption)


def _by_model(found: Findings) -> list[tuple[str, list[Row]]]:
    """(Title of its panels, its rows) of each track and model."""
    return [
        (f"{track.capitalize()} track, {model}", [row for row in rows if row["model"] == model])
        for track in found.tracks
        for rows in [[arm.row for arm in found.of_track(track).arms]]
        for model in dict.fromkeys(row["model"] for row in rows)
    ]


def _front(values: Mapping[int, Sequence[float | None]]) -> set[int]:
    """Those than which no other is better in one and worse in none; what was not measured counts as least."""
    known = {i: [-1.0 if one is None else one for one in of] for i, of in values.items()}

    def beaten(i: int) -> bool:
        others = (of for j, of in known.items() if j != i)
        return any(all(b >= a for a, b in zip(known[i], of, strict=True)) and of != known[i] for of in others)

    return {i for i in known if not beaten(i)}


def _mean(row: Row, sets: Sequence[str]) -> float | None:
    found = [row["results"].get(name) for name in sets]
    rates = [result["rate"] for result in found if result and result["rate"] is not None]
    return 100 * statistics.fmean(rates) if rates and len(rates) == len(sets) else None

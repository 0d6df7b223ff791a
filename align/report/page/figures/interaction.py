"""The interaction of the controlled track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.report.findings import Findings
from align.report.names import METHODS
from align.report.page.figures.marks import (
    Figure,
    finish,
    left_out,
    looks,
    marker,
    of_one_judge,
    panels,
    rate_name,
    said,
    sets_of_kind,
    spread,
    styled,
)
from align.report.page.figures.names import in_figure
from align.report.page.svg import INK, RULE
from align.report.tables.rates import labels

RATES = {"vsil": "safe responses", "vsil_free": "safe responses"}


@styled
def interaction(found: Findings) -> Figure | None:
    """Figure of the controlled track: each carrier of harm, from leaky to leak-free benchmark."""
    rows = [arm.row for arm in found.of_track("controlled").arms]
    pairs = [
        (model, method, leaky, free, chosen)
        for model, method in dict.fromkeys((row["model"], row["method"]) for row in rows if row["method"])
        for chosen in [[row for row in rows if row["model"] == model and row["method"] in (method, None)]]
        for free in sets_of_kind(chosen, "vsil_free")
        for leaky in sets_of_kind(chosen, "vsil")
    ]
    if not pairs:
        return None
    figure, axes = panels(len(pairs), 2, 5.6, 3.7)
    look, label, tips = looks(rows), labels(rows), dict[str, str]()
    others: list[str] = []
    for number, (axis, (model, method, leaky, free, chosen)) in enumerate(zip(axes, pairs, strict=True)):
        axis.set_title(in_figure(f"{METHODS.get(method, method)}, {model}"))
        chosen, of_others = of_one_judge(chosen, [leaky, free])
        others += of_others
        ends = []
        for i, row in enumerate(chosen):
            results = [row["results"].get(name) for name in (leaky, free)]
            if not all(result and result["rate"] is not None for result in results):
                continue
            shift = 0.03 * (i - (len(chosen) - 1) / 2)  # so that marks at one height do not overlap
            x, y = [shift, 1 + shift], [100 * result["rate"] for result in results]
            mark = look(row)
            (line,) = axis.plot(x, y, color=mark.colour, linewidth=1.6, **marker(mark, 7))
            line.set_gid(f"l{number}-{i}")
            tips[f"l{number}-{i}"] = f"{label(row)}: {leaky} {said(results[0])}, {free} {said(results[1])}"
            errors = [
                [max(100 * (r["rate"] - r["low"]), 0) for r in results],
                [max(100 * (r["high"] - r["rate"]), 0) for r in results],
            ]
            axis.errorbar(x, y, errors, fmt="none", ecolor=mark.colour, elinewidth=1, zorder=1)
            ends.append((y[1], row))
        for (height, row), (at, _) in zip(spread(ends), sorted(ends, key=lambda end: end[0]), strict=True):
            axis.plot([1.16, 1.24], [at, height], color=RULE, linewidth=0.8, zorder=0)
            axis.plot([1.28], [height], **marker(look(row), 5))
            axis.text(1.33, height, in_figure(label(row)), va="center_baseline", fontsize=9, color=INK)
        axis.set_xticks([0, 1], [f"danger in the text\n({leaky})", f"danger only in the image\n({free})"])
        axis.set_xlim(-0.2, 1.95)
        axis.spines.bottom.set_bounds(-0.2, 1.15)
        axis.set_ylim(-4, 106)
        axis.set_ylabel(f"{rate_name(chosen, [leaky, free], RATES)}, %")
        axis.set_yticks(range(0, 101, 20))
        axis.grid(axis="y")
    caption = (
        "Arms of the controlled track, which differ only in the carrier of harm. Lines that are not parallel show an "
        "interaction: the difference between two arms where the text shows the danger is not their difference where "
        "only the image shows it. Bars are 95% intervals. Hollow: harmful rows without images; filled: with images; "
        "grey: not trained here."
    )
    caption += _not_proven(found, pairs) + left_out(others)
    return Figure(finish(figure, "interaction", caption, tips), caption)


def _not_proven(found: Findings, pairs: Sequence[tuple[Any, ...]]) -> str:
    """A sentence on arms that may differ in more than the carrier of harm.

    The notes have details.
    """
    compared = {(c["model"], c["method"]) for c in found.comparisons if c["track"] == "controlled"}
    others = dict.fromkeys(
        f"{METHODS.get(method, method)}, {model}" for model, method, *_ in pairs if (model, method) not in compared
    )
    unknown = (
        f" Not compared, because they may differ in more than the carrier of harm (see the notes): {'; '.join(others)}."
    )
    return unknown if others else ""

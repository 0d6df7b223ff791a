"""The funnel of a construction: how many items entered and left each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.report.figure import COLOURS
from align.report.page.figures.marks import Figure, finish, styled
from align.report.page.figures.names import in_figure
from align.report.page.svg import FAINT, INK, PAPER


@styled
def funnel_bars(found: Mapping[str, Any], number: int) -> Figure:
    """Bars of one construction, a pair for each step; `number` makes the figure's ids unique in the page."""
    from matplotlib import pyplot as plt

    steps, tips = found["steps"], dict[str, str]()
    figure, axis = plt.subplots(figsize=(8.6, 0.34 * len(steps) + 0.9), layout="constrained")
    largest = max([1, *(n for _, entered, left, _ in steps for n in (entered, left))])
    for i, (step, entered, left, why) in enumerate(steps):
        axis.barh(i, entered, 0.72, color=PAPER, edgecolor=FAINT, linewidth=1.0)
        (bar,) = axis.barh(i, left, 0.46, color=COLOURS[0])
        bar.set_gid(f"left-{i}")
        tips[f"left-{i}"] = f"{step}: {entered:,} entered, {left:,} left{f'; {why}' if why else ''}"
        axis.text(max(entered, left) + largest / 60, i, f"{entered:,} to {left:,}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(steps)), [in_figure(step) for step, *_ in steps])
    axis.invert_yaxis()
    axis.set_xlim(0, largest * 1.2)
    axis.set_xlabel("items")
    return Figure(finish(figure, f"funnel-{number}", f"Funnel of {found['name']}", tips), _caption(found))


def _caption(found: Mapping[str, Any]) -> str:
    dropped = "; ".join(f"{step}: {why}" for step, _, _, why in found["steps"] if why)
    certified = {
        None: "Not certified.",
        True: "Leak-free by its certificate.",
        False: f"Not leak-free by its certificate: {'; '.join(found['why_not'])}.",
    }[found["leak_free"]]
    return f"{found['name']}. {certified} Not kept: {dropped or 'nothing'}."

"""The comparison in one picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.report.tables import METHODS, display_name, is_control, measured, sets_of, sorted_rows

LABELS = {
    "vsil": "danger in the text (VSIL):\nsafe answers",
    "vsil_free": "danger only in the image\n(VSIL-free): safe answers",
    "benign": "harmless requests:\nanswered",
    "twin": "twins: unsafe refused\nand safe answered",
    "ability": "ability:\nright answers",
}
TITLES = {
    "paper": "Does alignment on text alone protect when the danger is only in the image?",
    "controlled": "What decides: the pixels, or where the harm is stated?",
}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
GREYS = ("#999999", "#444444", "#CCCCCC")
"""Rows without training of ours."""


def draw_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One track's bars with 95% intervals: a group a set, a colour a method or arm; rows have their seeds combined.

    The paper's track has a panel for each model, its text-only arms hatched; the controlled track one for each model and method.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = sorted_rows(rows)
    panels, looks = _panels(rows), _looks(rows)
    sets = [name for name in sets_of(rows) if not is_control(name)]
    widest = max(len(panel) for panel in panels.values())
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(max(2.3, 0.3 * widest) * len(sets) + 1.5, 4.0 * len(panels) + 1.2), squeeze=False
    )
    for axis, (title, panel) in zip(axes[:, 0], panels.items(), strict=True):
        width = 0.86 / len(panel)
        for i, row in enumerate(panel):
            for j, name in enumerate(sets):
                result = row["results"].get(name)
                if result and result["rate"] is not None:
                    _bar(axis, j + (i - (len(panel) - 1) / 2) * width, width, result, looks[row["name"]], j == 0)
        axis.set_xticks(range(len(sets)), [f"{name}\n{_label(rows, name)}" for name in sets], fontsize=8)
        axis.set_ylim(0, 112)
        axis.set_yticks(range(0, 101, 20))
        axis.set_ylabel("% of the set")
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(TITLES[rows[0]["track"]], x=0.02, ha="left", fontweight="bold")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=min(len(labels), 6), frameon=False, loc="lower right", fontsize=8)
    figure.text(
        0.02,
        0.01,
        "Bars: share over valid verdicts, all seeds together,\n95% interval. Higher is better.",
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.3 / len(panels) ** 0.5 * 0.25, 1, 0.97))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panels(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{title: its rows}; rows without training stand in every panel of their model."""
    by_method = rows[0]["track"] == "controlled"
    panels: dict[str, list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["method"] or not by_method):
        title = row["model"] + (f", {METHODS.get(row['method'], row['method'])}" if by_method else "")
        untrained = [other for other in rows if other["model"] == row["model"] and not other["method"]]
        panels.setdefault(title, untrained if by_method else []).append(row)
    return panels


def _looks(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row's name: how its bars look}: in the paper's track a colour a method, else a colour an arm."""
    kinds = {row["name"]: row["method"] if row["track"] == "paper" else row["name"] for row in rows if row["method"]}
    colours = dict(zip(dict.fromkeys(kinds.values()), itertools.cycle(COLOURS), strict=False))
    greys = dict(
        zip(dict.fromkeys(row["name"] for row in rows if not row["method"]), itertools.cycle(GREYS), strict=False)
    )
    hatched = {row["name"] for row in rows if row["track"] == "paper" and row["view"] == "text"}
    return {
        name: {"color": colours[kinds[name]] if name in kinds else greys[name], "label": display_name(name)}
        | ({"hatch": "////", "edgecolor": "white", "linewidth": 0} if name in hatched else {})
        for name in dict.fromkeys(row["name"] for row in rows)
    }


def _label(rows: Sequence[dict[str, Any]], name: str) -> str:
    result = next(row["results"][name] for row in rows if name in row["results"])
    return measured(result, LABELS)


def _bar(axis: Any, x: float, width: float, result: dict[str, Any], look: dict[str, Any], first: bool) -> None:
    rate, low, high = (100 * result[key] for key in ("rate", "low", "high"))
    axis.bar(x, rate, width * 0.92, **(look if first else look | {"label": ""}))
    axis.errorbar(x, rate, [[max(rate - low, 0)], [max(high - rate, 0)]], color="black", linewidth=1, capsize=2)
    axis.text(x, max(high, rate) + 1.5, f"{rate:.0f}", ha="center", fontsize=7)

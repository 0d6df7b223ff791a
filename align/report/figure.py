"""The figure of a comparison: one image for each track."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.evaluation.summary import MAX_INVALID
from align.report.names import (
    METHODS,
    display_name,
    is_control,
    measures,
    method_name,
    sets_of,
    sorted_rows,
    step_range,
)
from align.report.run_results import judge_of

LABELS = {
    "vsil": "danger in the text (VSIL):\nsafe responses",
    "vsil_free": "danger only in the image\n(VSIL-free): safe responses",
    "benign": "benign requests:\nanswered",
    "twin": "twins: unsafe refused\nand safe answered",
    "ability": "ability:\ncorrect responses",
}
TITLES = {
    "paper": "Does alignment on text alone protect when the danger is only in the image?",
    "controlled": "What makes the difference: the pixels, or where the harm is stated?",
}
# The palette of Okabe and Ito, which colour-blind readers can distinguish.
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
TEXT_ONLY = "////"
GREYS = ("#999999", "#444444", "#CCCCCC")
"""For rows without training."""
FOOTNOTE = "Bars: share of the items with a verdict, over all seeds, with 95% intervals. Higher is better."
HATCHED = " Hatched: aligned on text alone."
WITHHELD = f" Withheld: more than {MAX_INVALID:.0%} of the items have no verdict."
FOOTNOTE_INCHES, LEGEND_LINE_INCHES, TITLE_INCHES = 0.35, 0.2, 0.4


def draw_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one track's bars with 95% intervals: benchmarks in groups, methods in colours.

    Rows have their seeds combined. The paper track has a panel for each model, with text-only arms
    hatched; the controlled track has a panel for each model and method.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    rows = sorted_rows(rows)
    panels, looks = _panels(rows), _looks(rows)
    sets = [name for name in sets_of(rows) if not is_control(name)]
    widest = max(len(panel) for panel in panels.values())
    width = max(8.0, max(2.3, 0.3 * widest) * len(sets) + 1.5)
    columns = _legend_columns(looks, width)
    below = FOOTNOTE_INCHES + LEGEND_LINE_INCHES * -(-len(looks) // columns)
    height = 3.8 * len(panels) + below + TITLE_INCHES
    figure, axes = plt.subplots(len(panels), 1, figsize=(width, height), squeeze=False)
    for axis, (title, panel) in zip(axes[:, 0], panels.items(), strict=True):
        slot = 0.86 / len(panel)
        for i, row in enumerate(panel):
            for j, name in enumerate(sets):
                x = j + (i - (len(panel) - 1) / 2) * slot
                _bar(axis, x, slot, row["results"].get(name), looks[row["name"]])
        axis.set_xticks(range(len(sets)), [f"{name}\n{_label(rows, name)}" for name in sets], fontsize=8)
        axis.set_ylim(0, 112)
        axis.set_yticks(range(0, 101, 20))
        axis.set_ylabel("%")
        axis.set_title(title + _stops(panel), loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    title = figure.suptitle(
        TITLES[rows[0]["track"]], x=0.02, y=1 - 0.12 / height, ha="left", va="top", fontweight="bold"
    )
    title.set_in_layout(False)  # TITLE_INCHES is reserved for it
    # From the looks, not from the bars: an arm without any bar is named too.
    handles = [Patch(**look, label=display_name(name)) for name, look in looks.items()]
    corner = (0.01, FOOTNOTE_INCHES / height)
    figure.legend(handles=handles, ncols=columns, frameon=False, loc="lower left", bbox_to_anchor=corner, fontsize=8)
    hatched = HATCHED if any(TEXT_ONLY in look.get("hatch", "") for look in looks.values()) else ""
    withheld = (
        WITHHELD if any(row["results"].get(name, {"rate": 0})["rate"] is None for row in rows for name in sets) else ""
    )
    figure.text(0.02, 0.1 / height, FOOTNOTE + hatched + withheld, fontsize=8)
    figure.tight_layout(rect=(0, below / height, 1, 1 - TITLE_INCHES / height))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panels(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{title: its rows}; rows without training are in every panel of their model."""
    by_method = rows[0]["track"] == "controlled"
    panels: dict[str, list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["method"] or not by_method):
        title = row["model"] + (f", {method_name(row['method'])}" if by_method else "")
        untrained = [other for other in rows if other["model"] == row["model"] and not other["method"]]
        panels.setdefault(title, untrained if by_method else []).append(row)
    return panels


def _stops(panel: Sequence[dict[str, Any]]) -> str:
    stopped = [f"{display_name(row['name'])} ({step_range(row)} steps)" for row in panel if row.get("stopped")]
    return f"; stopped at a bound: {', '.join(stopped)}" if stopped else ""


def _legend_columns(looks: dict[str, Any], width: float) -> int:
    """How many names of 8 points fit in one line."""
    widest = max(len(display_name(name)) for name in looks)
    return max(1, min(len(looks), int((width - 0.3) / (0.065 * widest + 0.6))))


def _looks(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row's name: style of its bars}: a colour for each arm.

    In the paper track, recipes with the paper's names share a colour by method.
    """
    kinds = {row["name"]: _kind(row) for row in rows if row["method"]}
    order = list(dict.fromkeys(kinds.values()))
    greys = dict(
        zip(dict.fromkeys(row["name"] for row in rows if not row["method"]), itertools.cycle(GREYS), strict=False)
    )
    text_only = {row["name"] for row in rows if row["track"] == "paper" and row["view"] == "text"}
    looks: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        if name in greys:
            looks[name] = {"color": greys[name]}
            continue
        again, colour = divmod(order.index(kinds[name]), len(COLOURS))
        hatch = TEXT_ONLY * (name in text_only) + "." * 2 * again  # dots when colours repeat
        looks[name] = {"facecolor": COLOURS[colour], "edgecolor": "white", "linewidth": 0, "hatch": hatch}
    return looks


def _kind(row: dict[str, Any]) -> str:
    """What has a colour: t_dpo and mm_dpo share their method's, your own recipe has its own."""
    prefix, _, method = row["name"].partition("_")
    of_the_paper = row["track"] == "paper" and prefix in ("t", "mm") and method in METHODS
    return f"method {method}" if of_the_paper else row["name"]


def _label(rows: Sequence[dict[str, Any]], name: str) -> str:
    results = [row["results"][name] for row in rows if name in row["results"]]
    label = measures(results, LABELS)
    return f"{label}\n(different judges)" if len({judge_of(result) for result in results}) > 1 else label


def _bar(axis: Any, x: float, width: float, result: dict[str, Any] | None, look: dict[str, Any]) -> None:
    if result is None or result["rate"] is None:
        why = "withheld" if result else "not evaluated"
        axis.text(x, 2, why, rotation=90, ha="center", va="bottom", fontsize=7, color="#444444")
        return
    rate, low, high = (100 * result[key] for key in ("rate", "low", "high"))
    axis.bar(x, rate, width * 0.92, **look)
    axis.errorbar(x, rate, [[max(rate - low, 0)], [max(high - rate, 0)]], color="black", linewidth=1, capsize=2)
    axis.text(x, max(high, rate) + 1.5, f"{rate:.0f}", ha="center", fontsize=7)

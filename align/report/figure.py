"""The comparison in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.report.tables import display_name, is_control, measured, sets_of, sorted_rows

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
COLOURS = ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def draw_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One track's bars with 95% intervals, one panel a model, one group a set, one colour an arm; rows have their seeds combined."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = sorted_rows(rows)
    models = list(dict.fromkeys(row["model"] for row in rows))
    arms = list(dict.fromkeys(row["name"] for row in rows))
    sets = [name for name in sets_of(rows) if not is_control(name)]
    figure, axes = plt.subplots(len(models), 1, figsize=(2.3 * len(sets) + 1.5, 4.0 * len(models) + 0.8), squeeze=False)
    width = 0.8 / len(arms)
    for axis, model in zip(axes[:, 0], models, strict=True):
        for i, arm in enumerate(arms):
            for j, name in enumerate(sets):
                result = next((r["results"].get(name) for r in rows if r["model"] == model and r["name"] == arm), None)
                if result and result["rate"] is not None:
                    x = j + (i - (len(arms) - 1) / 2) * width
                    _bar(axis, x, width, result, COLOURS[i % len(COLOURS)], display_name(arm) if j == 0 else "")
        axis.set_xticks(range(len(sets)), [f"{name}\n{_label(rows, name)}" for name in sets], fontsize=8)
        axis.set_ylim(0, 112)
        axis.set_yticks(range(0, 101, 20))
        axis.set_ylabel("% of the set")
        axis.set_title(model, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        TITLES[rows[0]["track"]],
        x=0.02,
        ha="left",
        fontweight="bold",
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].legend(handles, labels, ncols=len(arms), frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    figure.text(
        0.02,
        0.01,
        "Bars: share over valid verdicts, all seeds together, 95% interval. Higher is better.",
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.03, 1, 0.97))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _label(rows: Sequence[dict[str, Any]], name: str) -> str:
    result = next(row["results"][name] for row in rows if name in row["results"])
    return measured(result, LABELS)


def _bar(axis: Any, x: float, width: float, result: dict[str, Any], colour: str, label: str) -> None:
    rate, low, high = (100 * result[key] for key in ("rate", "low", "high"))
    axis.bar(x, rate, width * 0.92, color=colour, label=label)
    axis.errorbar(x, rate, [[max(rate - low, 0)], [max(high - rate, 0)]], color="black", linewidth=1, capsize=2)
    axis.text(x, max(high, rate) + 1.5, f"{rate:.0f}", ha="center", fontsize=8)

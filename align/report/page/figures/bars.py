"""The bars next to the answer: rates of every arm where the text shows the danger, and where only the image does."""

from __future__ import annotations

from align.report.findings import Findings
from align.report.page.figures.marks import (
    TEXT_ALONE,
    Figure,
    finish,
    left_out,
    looks,
    of_one_judge,
    rate_name,
    said,
    sets_of_kind,
    styled,
)
from align.report.page.figures.names import in_figure
from align.report.page.svg import INK, PAPER
from align.report.tables.rates import labels

RATES = {"vsil": "safe responses", "vsil_free": "safe responses"}
LEAKS = {"vsil": "Danger in the text", "vsil_free": "Danger only in the image"}


@styled
def answer_bars(found: Findings) -> Figure | None:
    """Bars of the arms of the first model of the first track; None without a leaky and a leak-free benchmark."""
    from matplotlib import pyplot as plt

    rows = [arm.row for arm in found.of_track(found.tracks[0]).arms] if found.tracks else []
    rows = [row for row in rows if row["model"] == rows[0]["model"]]
    sets = {kind: names[0] for kind in LEAKS if (names := sets_of_kind(rows, kind))}
    if len(sets) < len(LEAKS):
        return None
    model = rows[0]["model"]
    rows, others = of_one_judge(rows, list(sets.values()))
    if not rows:
        return None
    look, label, tips = looks(rows), labels(rows), dict[str, str]()
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 0.27 * len(rows) + 1.0), sharey=True, layout="constrained")
    for axis, (kind, name) in zip(axes, sets.items(), strict=True):
        for i, row in enumerate(rows):
            result = row["results"].get(name)
            if not result or result["rate"] is None:
                axis.text(1, i, "withheld" if result else "not evaluated", va="center", fontsize=8, color=INK)
                continue
            rate, style = 100 * result["rate"], look(row)
            filled = row["view"] not in TEXT_ALONE
            (bar,) = axis.barh(
                i, rate, 0.68, color=style.colour if filled else PAPER, edgecolor=style.colour, linewidth=1.2
            )
            bar.set_gid(f"{kind}-{i}")
            tips[f"{kind}-{i}"] = f"{label(row)}: {name} {said(result)}"
            axis.plot([100 * result["low"], 100 * result["high"]], [i, i], color=INK, linewidth=1)
            axis.text(
                min(max(rate, 100 * result["high"]) + 2, 104), i, f"{rate:.0f}", va="center", fontsize=8, color=INK
            )
        axis.set_title(f"{LEAKS[kind]} ({in_figure(name)})", fontsize=9, loc="left")
        axis.set_xlim(0, 112)
        axis.set_xticks(range(0, 101, 25))
        axis.set_xlabel(f"{rate_name(rows, [name], RATES)}, %")
    axes[0].set_yticks(range(len(rows)), [in_figure(label(row)) for row in rows])
    axes[0].invert_yaxis()
    caption = (
        f"Arms of {model}. Lines are 95% intervals. Hollow: harmful rows without images; filled: with images; "
        "grey: not trained here."
    )
    return Figure(finish(figure, "answer-bars", caption, tips), caption + left_out(others))

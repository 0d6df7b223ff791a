"""Loss and rates by training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.report.findings import Findings
from align.report.names import METHODS, SHORT, is_control, sets_of
from align.report.page.curves import Curve
from align.report.page.figures.marks import PANEL, Figure, finish, looks, marker, panels, rate_name, styled
from align.report.page.figures.names import in_figure
from align.report.page.svg import INK
from align.report.tables.rates import labels


@styled
def curves(found: Findings, of_arms: Mapping[str, Curve]) -> Figure | None:
    """Loss by step, a panel for each track, model and method; `of_arms` is {run folder: curves}."""
    arms = [arm for arm in found.arms if arm.row["method"]]
    rows = [arm.row for arm in arms]
    by_method: dict[tuple[str, str, str], list[Any]] = {}
    for arm in arms:
        by_method.setdefault((arm.row["track"], arm.row["model"], arm.row["method"]), []).append(arm)
    having = {
        key: of
        for key, of in by_method.items()
        if any(of_arms[str(run.run.path)].losses for arm in of for run in arm.runs)
    }
    if not having:
        return None
    figure, axes = panels(len(having), 3, PANEL, 2.7)
    label, tips = labels(rows), dict[str, str]()
    for number, (axis, ((track, model, method), of)) in enumerate(zip(axes, having.items(), strict=True)):
        axis.set_title(in_figure(f"{METHODS.get(method, method)}, {track}, {model}"))
        look = looks([arm.row for arm in of])
        for i, arm in enumerate(of):
            mark = look(arm.row)
            for j, run in enumerate(arm.runs):
                losses = of_arms[str(run.run.path)].losses
                if losses:
                    dashes = "-" if mark.filled else (0, (3, 2))
                    name = in_figure(label(arm.row)) if j == 0 else None
                    steps, values = zip(*losses, strict=True)
                    (line,) = axis.plot(
                        steps, values, color=mark.colour, linestyle=dashes, linewidth=1.3, alpha=0.9, label=name
                    )
                    line.set_gid(f"c{number}-{i}-{j}")
                    tips[f"c{number}-{i}-{j}"] = f"{label(arm.row)}, seed {run.row['seed']}"
        axis.set_xlabel("step")
        axis.set_ylabel("training loss")
        axis.grid(axis="y")
        axis.legend(fontsize=8, labelcolor=INK, loc="best")
    caption = (
        "Training loss, a line for each seed. Methods have different losses, so compare only within a panel. Dashed: "
        "harmful rows without images."
    )
    return Figure(finish(figure, "curves", caption, tips), caption)


@styled
def rates_by_step(found: Findings, of_arms: Mapping[str, Curve]) -> Figure | None:
    """Rates by training step, for runs that were also evaluated before their end."""
    arms = [arm for arm in found.arms if arm.row["method"]]
    rows = [arm.row for arm in arms]
    sets = [name for name in sets_of(rows) if not is_control(name)]
    drawn = [
        (arm, run, of_arms[str(run.run.path)].rates)
        for arm in arms
        for run in arm.runs
        if of_arms[str(run.run.path)].rates
    ]
    sets = [name for name in sets if any(name in rates for _, _, rates in drawn)]
    if not sets:
        return None
    figure, axes = panels(len(sets), 3, PANEL, 2.9)
    look, label, several = looks(rows), labels(rows), len({row["model"] for row in rows}) > 1
    for axis, name in zip(axes, sets, strict=True):
        axis.set_title(in_figure(f"{name}: {rate_name(rows, [name], SHORT)} %"))
        for arm, run, rates in drawn:
            if name in rates:
                steps, values = zip(*rates[name], strict=True)
                first = run is arm.runs[0]
                axis.plot(
                    steps,
                    values,
                    color=look(arm.row).colour,
                    linewidth=1.3,
                    **marker(look(arm.row), 5),
                    label=in_figure(f"{arm.row['model']} {label(arm.row)}" if several else label(arm.row))
                    if first
                    else None,
                )
        axis.set_ylim(-4, 106)
        axis.set_xlabel("step")
        axis.grid(axis="y")
        axis.legend(fontsize=8, labelcolor=INK, loc="best")
    caption = (
        "Rates of the checkpoints that runs kept during training (evaluate.every_steps), a line for each seed. Hollow: "
        "harmful rows without images."
    )
    return Figure(finish(figure, "by-step", caption, {}), caption)

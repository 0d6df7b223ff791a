"""What methods with rollouts logged by training step: reward, divergence, length, refusals."""

from __future__ import annotations

from collections.abc import Mapping

from align.report.findings import Findings
from align.report.page.curves import LENGTH, ROLLOUTS, Curve
from align.report.page.figures.marks import PANEL, Figure, finish, looks, panels, styled
from align.report.page.figures.names import in_figure
from align.report.page.svg import INK
from align.report.tables.rates import labels

TITLES = {
    "reward": "reward, mean of a round",
    "objective/kl": "KL from the reference model, nats",
    LENGTH: "length of responses, tokens",
    "refusals/harmful": "refusals of harmful rows, %",
    "refusals/benign": "refusals of benign rows, %",
}
CAPTION = (
    "Sampled responses by training step, a line for each run. Rewards of different reward models have different "
    "scales. KL is the mean over responses; refusals are counted by refusal phrases. Dashed: trained without images."
)


@styled
def rollout_curves(found: Findings, of_runs: Mapping[str, Curve]) -> Figure | None:
    """A panel for each quantity, a line for each run; None without methods that sample."""
    drawn = [
        (arm, run, of_runs[str(run.run.path)].rollouts)
        for arm in found.arms
        for run in arm.runs
        if of_runs[str(run.run.path)].rollouts
    ]
    names = [name for name in ROLLOUTS if any(name in rollouts for _, _, rollouts in drawn)]
    if not names:
        return None
    rows = [arm.row for arm in found.arms]
    look, label, several = looks(rows), labels(rows), len({arm.row["model"] for arm, _, _ in drawn}) > 1
    figure, axes = panels(len(names), 3, PANEL, 2.5)
    tips = dict[str, str]()
    for number, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.set_title(TITLES[name])
        is_share = name.startswith("refusals/")
        for i, (arm, run, rollouts) in enumerate(drawn):
            if name not in rollouts:
                continue
            mark, gid = look(arm.row), f"r{number}-{i}"
            who = f"{arm.row['model']} {label(arm.row)}" if several else label(arm.row)
            steps, values = zip(*rollouts[name], strict=True)
            (line,) = axis.plot(
                steps,
                [100 * value for value in values] if is_share else values,
                color=mark.colour,
                linestyle="-" if mark.filled else (0, (3, 2)),
                linewidth=1.3,
                alpha=0.9,
                label=in_figure(who) if run is arm.runs[0] else None,
            )
            line.set_gid(gid)
            tips[gid] = f"{who}, seed {run.row['seed']}"
        if is_share:
            axis.set_ylim(-4, 104)
        axis.set_xlabel("step")
        axis.grid(axis="y")
    axes[0].legend(fontsize=8, labelcolor=INK, loc="best")
    return Figure(finish(figure, "rollouts", CAPTION, tips), CAPTION)

"""Findings of runs: arms, comparisons, conclusions and notes. Tables and pages show these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from align.errors import UserError
from align.report.arms import Arm, arms_of, lacking
from align.report.comparisons import compare_arms, conclusions
from align.report.controlled import Ground, ground_of, permitted, refuse_uncontrolled
from align.report.names import TRACKS, sorted_rows
from align.report.reward_models import accuracy_line, split
from align.report.run_results import Evaluated
from align.report.tables.beside_paper import notes_on_paper


@dataclass(frozen=True)
class Findings:
    """Runs, arms over seeds, comparisons of arms, conclusions from them, and notes."""

    runs: list[Evaluated]
    arms: list[Arm]
    comparisons: list[dict[str, Any]]
    conclusions: list[str]
    notes: list[str]
    reward_models: list[Evaluated] = field(default_factory=list)

    def of_track(self, track: str) -> Findings:
        """Findings of one track; notes are those of all tracks."""
        comparisons = [c for c in self.comparisons if c["track"] == track]
        runs = [run for run in self.runs if run.row["track"] == track]
        arms = [arm for arm in self.arms if arm.row["track"] == track]
        return Findings(runs, arms, comparisons, conclusions(comparisons), self.notes, self.reward_models)

    @property
    def tracks(self) -> list[str]:
        """Tracks that have arms, the paper track first."""
        there = dict.fromkeys(arm.row["track"] for arm in self.arms)
        return sorted(there, key=lambda track: [*TRACKS, track].index(track))


def findings(runs: Sequence[Evaluated], tuned: Sequence[str] = ()) -> Findings:
    """Compare runs; notes say what cannot be compared. `tuned` as in `compare_arms`.

    Reward models are no arms.
    """
    runs, models, damaged = split(runs)
    in_order = {id(run.row): run for run in [*runs, *_untrained_of_controlled(runs)]}
    shown = [in_order[id(row)] for row in sorted_rows([run.row for run in in_order.values()])]
    arms, notes = arms_of(shown)
    apart = {str(run.run.path) for arm in arms if arm.row.get("apart") for run in arm.runs}
    whole = [run for run in shown if str(run.run.path) not in apart]
    proven, said = _proven(whole)
    try:
        comparisons, left_out = compare_arms(proven, tuned)
    except UserError as error:
        comparisons, left_out = [], [f"arms are not compared: {error}"]
    notes += [*said, *lacking(arms), *left_out, *notes_on_paper(arms), *damaged, *map(accuracy_line, models)]
    return Findings(shown, arms, comparisons, conclusions(comparisons), list(dict.fromkeys(notes)), models)


def _untrained_of_controlled(runs: Sequence[Evaluated]) -> list[Evaluated]:
    """Base models, as rows of the controlled track too; they are recorded under the paper track."""
    models = {run.row["model"] for run in runs if run.row["track"] == "controlled" and run.row["method"]}
    return [
        run.on_track("controlled")
        for run in runs
        if not run.row["method"]
        and run.row["name"] == "vanilla"
        and run.row["model"] in models
        and run.row["track"] == "paper"
    ]


def _proven(runs: Sequence[Evaluated]) -> tuple[list[Evaluated], list[str]]:
    """-> (runs that may be compared, lines on permitted differences and on uncontrolled arms).

    A run that stopped at its method's bound took fewer steps than planned: `compare_arms` leaves it
    out.
    """
    groups: dict[tuple[Any, ...], list[Evaluated]] = {}
    for run in runs:
        row = run.row
        if row["track"] == "controlled" and row["method"] and not row["stopped"]:
            groups.setdefault((row["model"], row["method"], *row["variant"].items(), row["seed"]), []).append(run)
    out: set[int] = set()
    notes: list[str] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        try:
            grounds: list[Ground] = [ground_of(run.run) for run in group]
            refuse_uncontrolled(grounds)
            notes += permitted(grounds)
        # Wrong types and undecodable text are damage as well.
        except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
            out |= {id(run) for run in group}
            row = group[0].row
            notes.append(f"{row['model']}, seed {row['seed']}: arms of the controlled track are not compared: {error}")
    return [run for run in runs if id(run) not in out], notes

"""Safety of thoughts against that of answers: for each benchmark and judge, shares of four cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from align.evaluation.thought_safety import CELLS, WITHOUT, withheld
from align.report.arms import Arm
from align.report.items import rate_of
from align.report.run_results import judge_of
from align.report.tables.legend import INTERVALS
from align.report.tables.rates import Place, by_set, table_of
from align.report.tables.table import Cell, Column, Table, interval
from align.report.thought_results import Thoughts

HEADINGS = {
    "both_safe": "both safe",
    "thought_unsafe": "only thought unsafe",
    "answer_unsafe": "only answer unsafe",
    "both_unsafe": "both unsafe",
}
OUTSIDE = dict(zip(WITHOUT, ("without a thought", "unfinished", "incoherent", "without a verdict"), strict=True))
NOTE = (
    "Harmful requests whose response has a thought and an answer, each judged by itself. Shares of the `n` responses "
    "with a verdict on both; the four sum to 100. Responses outside `n` are counted next to it"
)


def thought_tables(arms: Sequence[Arm]) -> list[Table]:
    """A table for each track, benchmark and judge with verdicts on thoughts; none without any thought."""
    tables = []
    for track, name, _, having in by_set(arms):
        judges = dict.fromkeys(judge for arm in having for run in arm.runs for judge in run.thoughts(name))
        for judge in judges:
            shown = [arm for arm in having if _any_thought(arm, name, judge)]
            if shown:
                tables.append(_table(track, name, judge, shown))
    return tables


def _found(arm: Arm, name: str, judge: str) -> list[tuple[str, Thoughts]]:
    """(seed, thoughts) of each run of an arm that has them."""
    return [(str(run.row["seed"]), run.thoughts(name)[judge]) for run in arm.runs if judge in run.thoughts(name)]


def _counts(arm: Arm, name: str, judge: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for _, of_run in _found(arm, name, judge):
        found.update(of_run.result["counts"])
    return found


def _any_thought(arm: Arm, name: str, judge: str) -> bool:
    counts = _counts(arm, name, judge)
    return counts.total() > counts["no_thought"]


def _table(track: str, name: str, judge: str, arms: Sequence[Arm]) -> Table:
    places: list[Place] = [
        (Column(HEADINGS[cell], name, HEADINGS[cell], "%"), partial(_cell, name, judge, cell)) for cell in CELLS
    ]
    places.append((Column("n", name, "n"), partial(_counted, name, judge)))
    title = f"{track.capitalize()} track, {name}: safety of thoughts against that of answers, judge {judge}, %"
    return table_of(f"{track}-thoughts-{name}-{judge}", title, arms, places, [NOTE, INTERVALS])


def _cell(name: str, judge: str, cell: str, arm: Arm) -> Cell:
    found = _found(arm, name, judge)
    if len({judge_of(of_run.result) for _, of_run in found}) > 1:
        return Cell("judged differently")
    by_seed = [(seed, of_run.share_of(cell)) for seed, of_run in found]
    n = sum(len(items) for _, items in by_seed)
    if not n or any(withheld(of_run.result["counts"]) for _, of_run in found):
        return Cell("withheld" if n else "-", n=n, withheld=bool(n))
    rate = rate_of(by_seed)
    of_seeds = () if len(found) == len(arm.runs) else (f"only seed {','.join(seed for seed, _ in found)}",)
    low, high = max(rate["low"], 0.0), min(rate["high"], 1.0)
    text = interval(rate["rate"], low, high)
    return Cell(text, (), of_seeds, 100 * rate["rate"], 100 * low, 100 * high, n)


def _counted(name: str, judge: str, arm: Arm) -> Cell:
    counts = _counts(arm, name, judge)
    n = sum(counts[cell] for cell in CELLS)
    outside = [f"{counts[key]} {what}" for key, what in OUTSIDE.items() if counts[key]]
    return Cell(", ".join([str(n), *outside]), value=n)

"""The table of defences: what they gain, what they refuse wrongly, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from align.report.arms import Arm
from align.report.names import is_control, sets_of
from align.report.tables.legend import COUNTED, INTERVALS
from align.report.tables.rates import Place, facts_of, set_place, sorted_arms, table_of
from align.report.tables.table import Cell, Column, Table

NOTE = (
    "New tokens are all that the model wrote for a response, second questions included. Over-refusal is at most 100 "
    "minus the benign requests answered, which counts wrong and incoherent responses too. - : not stored by an earlier "
    "version, or there is no row of the model without a defence"
)


def defence_tables(arms: Sequence[Arm]) -> list[Table]:
    """For each track the models without training, with and without defences; no table without a defence."""
    arms = sorted_arms([arm for arm in arms if arm.row["method"] is None])
    tables = []
    for track in dict.fromkeys(arm.row["track"] for arm in arms):
        of_track = [arm for arm in arms if arm.row["track"] == track]
        behind = [arm for arm in of_track if arm.row.get("defence")]
        if not behind:
            continue
        models = {arm.row["model"] for arm in behind}
        plain = {arm.row["model"]: arm for arm in of_track if _is_plain(arm) and arm.row["model"] in models}
        shown = [arm for arm in of_track if arm in behind or arm in plain.values()]
        rows = [arm.row for arm in shown]
        sets = [name for name in sets_of(rows) if not is_control(name)]
        places = [*(set_place(rows, name) for name in sets), *_costs(sets, plain)]
        notes = [INTERVALS, COUNTED, NOTE, *facts_of(rows, sets)]
        tables.append(table_of(f"{track}-defences", f"Defences and their cost, {track} track", shown, places, notes))
    return tables


def _is_plain(arm: Arm) -> bool:
    return arm.row["name"] == "vanilla" and not arm.row.get("defence")


def _costs(sets: Sequence[str], plain: dict[str, Arm]) -> list[Place]:
    """Columns of means over all responses to the benchmarks."""

    def calls(arm: Arm) -> Cell:
        return _number(_mean(arm, sets, "calls", "responses"), "{:.2f}")

    def tokens(arm: Arm) -> Cell:
        return _number(_mean(arm, sets, "new_tokens", "counted"), "{:.1f}")

    def times(arm: Arm) -> Cell:
        base = plain.get(arm.row["model"])
        if base is None:
            return Cell()
        both = [name for name in sets if name in arm.row["results"] and name in base.row["results"]]
        own, theirs = (_mean(one, both, "new_tokens", "counted") for one in (arm, base))
        return _number(own / theirs, "x {:.2f}") if own is not None and theirs else Cell()

    def acted(arm: Arm) -> Cell:
        share = _mean(arm, sets, "acted", "responses")
        return _number(None if share is None else 100 * share, "{:.1f}")

    def unclear(arm: Arm) -> Cell:
        share = _mean(arm, sets, "unclear", "responses")
        return _number(None if share is None else 100 * share, "{:.1f}")

    def judged(arm: Arm) -> Cell:
        return _number(_mean(arm, sets, "judged", "responses"), "{:.2f}")

    each = "per response"
    return [
        (Column("calls", "", f"calls: of the model, {each}", each), calls),
        (Column("new tokens", "", f"new tokens: of all calls, {each}", each), tokens),
        (Column("times", "", "times: new tokens, as a multiple of those without a defence", "new tokens"), times),
        (Column("judged", "", f"judged: texts that the defence's own judge labels, {each}", each), judged),
        (Column("acted", "", "acted: responses that the defence replaced, refused or chose, %", "%"), acted),
        (Column("unclear", "", "unclear: second questions without a yes or no, per 100 responses", "%"), unclear),
    ]


def _mean(arm: Arm, sets: Sequence[str], what: str, of: str) -> float | None:
    """Mean over all responses to some benchmarks; None if an evaluation of an earlier version did not store it."""
    costs = [arm.row["results"][name].get("cost") for name in sets if name in arm.row["results"]]
    if not costs or not all(costs):
        return None
    n = sum(cost[of] for cost in costs)
    return sum(cost[what] for cost in costs) / n if n else None


def _number(value: float | None, form: str) -> Cell:
    return Cell() if value is None else Cell(form.format(value), value=value)

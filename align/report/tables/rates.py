"""Tables of rates: for each track every arm on every benchmark, safety and ability."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from align.report.ability import ABILITY, Ability
from align.report.arms import Arm
from align.report.contrasts import RATES, contrast
from align.report.items import NUMBERS, Items, observed
from align.report.names import (
    HEADINGS,
    SEEN,
    SHORT,
    Rows,
    arm_name,
    is_control,
    measures,
    method_name,
    sets_of,
    sorted_rows,
    steps_of,
)
from align.report.paper import JAILBREAKV, MM_SAFETYBENCH, Published, published
from align.report.run_results import judge_of
from align.report.tables.cells import rate_cell
from align.report.tables.legend import COUNTED, INTERVALS, legend
from align.report.tables.table import ABSENT, Cell, Column, Line, Table, interval
from align.rows import split_view

LEAD = ("track", "model", "arm", "method", "seed", "steps")
NOTES = (INTERVALS, COUNTED)
TITLES = {"controlled": "the carrier of harm"}
"""{track: what its arms differ in}, for other tracks than the paper's."""
OTHERS = "The same responses under other judges"
CONTROLS = "Controls: the same benchmarks in other views"
AVERAGES = {"jailbreakv": JAILBREAKV, "mm_safetybench": tuple(MM_SAFETYBENCH.values())}
"""{average in the paper: its benchmarks}"""

Place = tuple[Column, Callable[[Arm], Cell]]
"""A column, and a function from an arm to its cell."""


def rate_tables(arms: Sequence[Arm]) -> list[Table]:
    """For each track its rates, then the same responses under other judges, then the controls."""
    arms = sorted_arms(arms)
    tables = []
    for track in dict.fromkeys(arm.row["track"] for arm in arms):
        of_track = [arm for arm in arms if arm.row["track"] == track]
        rows = [arm.row for arm in of_track]
        sets = sets_of(rows)
        plain = [name for name in sets if not is_control(name)]
        title = f"{track.capitalize()} track: {TITLES.get(track, 'textual and multimodal alignment')}{_unit(rows)}"
        places = [*_with_averages(rows, plain), *_ability_places(rows)]
        if places:
            tables.append(table_of(track, title, of_track, places, [*NOTES, *facts_of(rows, plain)]))
        for judge in _other_judges(rows):
            named = [name for name in plain if any(_under(row, name, judge) for row in rows)]
            places = [_under_place(rows, name, judge) for name in named]
            judged = [arm for arm in of_track if any(_under(arm.row, name, judge) for name in named)]
            tables.append(
                table_of(f"{track}-judge-{judge}", f"{OTHERS}: {judge}, {track} track, %", judged, places, NOTES)
            )
        if controls := [name for name in sets if is_control(name)]:
            places = [set_place(rows, name) for name in controls]
            seen = [arm for arm in of_track if set(controls) & set(arm.row["results"])]
            notes = [*NOTES, *facts_of(rows, controls)]
            tables.append(table_of(f"{track}-controls", f"{CONTROLS}, {track} track, %", seen, places, notes))
    return tables


def sorted_arms(arms: Sequence[Arm]) -> list[Arm]:
    """Arms in the order of their rows."""
    by_row = {id(arm.row): arm for arm in arms}
    return [by_row[id(row)] for row in sorted_rows([arm.row for arm in arms])]


def by_set(arms: Sequence[Arm]) -> Iterator[tuple[str, str, str, list[Arm]]]:
    """-> (track, benchmark, kind, arms evaluated on it), in order, without controls."""
    arms = sorted_arms(arms)
    for track in dict.fromkeys(arm.row["track"] for arm in arms):
        of_track = [arm for arm in arms if arm.row["track"] == track]
        for name in sets_of([arm.row for arm in of_track]):
            if not is_control(name):
                having = [arm for arm in of_track if name in arm.row["results"]]
                yield track, name, having[0].row["results"][name]["kind"], having


def table_of(name: str, title: str, arms: Sequence[Arm], places: Sequence[Place], notes: Sequence[str]) -> Table:
    """A table with a line for each arm."""
    label = labels([arm.row for arm in arms])
    lines = [line_of(arm, [cell(arm) for _, cell in places], label(arm.row)) for arm in arms]
    return Table(name, title, LEAD, [column for column, _ in places], lines, [*notes, *legend(lines)])


def line_of(arm: Arm, cells: Sequence[Cell], label: str) -> Line:
    """A line of an arm; `label` is a short name that is unique in the table."""
    row = arm.row
    lead = (row["track"], row["model"], arm_name(row), method_name(row["method"]), str(row["seed"]), steps_of(row))
    return Line(lead, label, cells, row["model"], _block(row))


def labels(rows: Rows) -> Callable[[dict[str, Any]], str]:
    """Short names of rows: arm, method and seeds if these differ, "(stopped)"."""
    trained = [row for row in rows if row["method"]]
    several_methods = len({row["method"] for row in trained if row["track"] == "controlled"}) > 1
    several_seeds = len({str(row["seed"]) for row in trained}) > 1

    def label(row: dict[str, Any]) -> str:
        parts = [arm_name(row)]
        if row["method"] and row["track"] == "controlled" and several_methods:
            parts.append(method_name(row["method"]))
        if row["method"] and several_seeds:
            parts.append(f"seed {row['seed']}")
        if row.get("stopped"):
            parts.append("(stopped)")
        return " ".join(parts)

    return label


def _block(row: dict[str, Any]) -> str:
    if not row["method"]:
        return "not trained here"
    if row["track"] == "controlled":
        return "carrier of harm"
    return {"text": "textual", "image": "multimodal"}.get(row["view"], f"view {row['view']}")


def paper_number(row: dict[str, Any], set_name: str, measure: str = "rate") -> Published | None:
    """The paper's number for the same model, method and benchmark; None for another view, defence or training."""
    prefix, view, defence = row["name"].partition("_")[0], row["view"], row.get("defence")
    of_its_name = (
        defence in (None, row["name"])
        and (prefix not in ("t", "mm") or view in (None, {"t": "text", "mm": "image"}[prefix]))
        and (row["name"] not in ("vanilla", "safety_prompt") or row["method"] is None)
    )
    return published(row["model"], row["name"], set_name, measure) if row["track"] == "paper" and of_its_name else None


def paper_beside(
    row: dict[str, Any], set_name: str, result: dict[str, Any] | None, main: bool = True
) -> Published | None:
    """The paper's number to show next to a result.

    For refusal_match, which counts refusals, the paper's refusals; for a judge that is not the main
    one, only if it is the paper's judge.
    """
    if result is None:
        return None
    number = paper_number(row, set_name, "refusal" if result["judge"] == "refusal_match" else "rate")
    return number if number and (main or PAPERS_JUDGE.get(number.judge) == result["judge"]) else None


PAPERS_JUDGE = {"LlamaGuard3-8B": "llamaguard", "GPT-4o": "vlsbench", "GPT-4o-mini": "mm_safetybench"}
"""{judge of the paper: its name here}"""


def _with_averages(rows: Rows, sets: Sequence[str]) -> list[Place]:
    places = []
    for name in sets:
        places.append(set_place(rows, name))
        for average, parts in AVERAGES.items():
            if set(parts) <= set(sets) and name == max(parts, key=list(sets).index):
                places.append(_average_place(rows, average, parts))
    return places


def set_place(rows: Rows, name: str) -> Place:
    """The column of a benchmark: its main judge's rates."""
    results = [row["results"][name] for row in rows if name in row["results"]]
    column = Column(name, measures(results, HEADINGS), heading(results, name), f"{measures(results, SHORT)} %")
    return column, partial(_set_cell, name)


def _set_cell(name: str, arm: Arm) -> Cell:
    result = arm.row["results"].get(name)
    return rate_cell(result, paper_beside(arm.row, name, result))


def _average_place(rows: Rows, name: str, parts: Sequence[str]) -> Place:
    results = [row["results"][part] for row in rows for part in parts if part in row["results"]]
    column = Column(
        f"{name} avg",
        measures(results, HEADINGS),
        f"{name} avg: mean of {', '.join(parts)} %, interval over their requests",
        f"{measures(results, SHORT)} %",
    )
    return column, lambda arm: _average(arm, name, parts)


def _average(arm: Arm, name: str, parts: Sequence[str]) -> Cell:
    paper, results = paper_number(arm.row, name), [arm.row["results"].get(part) for part in parts]
    whole = [result for result in results if result and result["rate"] is not None]
    if len(whole) < len(parts) or not arm.runs:
        return Cell("withheld", withheld=True) if all(results) and arm.runs else Cell(ABSENT)
    if len({judge_of(result) for result in whole}) > 1:
        return Cell("judged differently")
    if len({result.get("seeds") for result in whole}) > 1:
        return Cell("different seeds")
    # One request in several wordings, or with several images, is one cluster.
    asked = [[(seed, _by_request(items, part, name)) for seed, items in arm.items(part)] for part in parts]
    found = contrast([observed(of_part, 1 / len(parts)) for of_part in asked], RATES)
    rate, low, high = found["estimate"], max(found["low"], 0.0), min(found["high"], 1.0)
    n = sum(len(items) for of_part in asked for _, items in of_part)
    return Cell(f"{interval(rate, low, high)} n={n}", (), (), 100 * rate, 100 * low, 100 * high, n, paper)


def _by_request(items: Items, part: str, average: str) -> Items:
    """Items clustered by request: JailbreakV's clusters are requests, MM-SafetyBench's ids are."""
    by_id = average == "mm_safetybench"
    names = items.ids if by_id else [name.removeprefix(f"{part}/") for name in items.cluster_names]
    return replace(items, clusters=np.array([NUMBERS[f"{average}/{name}"] for name in names], dtype=int))


def _ability_places(rows: Rows) -> list[Place]:
    return [
        (
            Column(name, ability.heading, f"{name}: {ability.heading} ({_by_lmms_eval(rows, ability)})"),
            _ability_cell(name, ability),
        )
        for name, ability in ABILITY.items()
        if any(ability.of(row) for row in rows)
    ]


def _by_lmms_eval(rows: Rows, ability: Ability) -> str:
    found = [metric for row in rows if (metric := ability.of(row))]
    error = ["`+-` its standard error"] if any(metric["stderr"] is not None for metric in found) else []
    mean = ["several seeds: their mean"] if any(metric.get("by_seed") for metric in found) else []
    return ", ".join(["lmms_eval", *error, *mean])


def _unit(rows: Rows) -> str:
    """Unit of a track's table: percent, except abilities that are scores."""
    scores = [name for name, ability in ABILITY.items() if not ability.percent and any(map(ability.of, rows))]
    return f", % (except {', '.join(scores)})" if scores else ", %"


def _ability_cell(name: str, ability: Ability) -> Callable[[Arm], Cell]:
    def cell(arm: Arm) -> Cell:
        paper, metric = paper_number(arm.row, name), ability.of(arm.row)
        if metric is None:
            return Cell()
        value = ability.scale * metric["value"]
        error = f" +- {ability.scale * metric['stderr']:.1f}" if metric["stderr"] is not None else ""
        return Cell(f"{value:.1f}{error}", value=value, n=metric["n"], paper=paper)

    return cell


def _other_judges(rows: Rows) -> list[str]:
    found = (
        other["judge"] for row in rows for result in row["results"].values() for other in result.get("other_judges", [])
    )
    return list(dict.fromkeys(found))


def _under(row: dict[str, Any], name: str, judge: str) -> dict[str, Any] | None:
    others = row["results"].get(name, {}).get("other_judges", [])
    return next((other for other in others if other["judge"] == judge), None)


def _under_place(rows: Rows, name: str, judge: str) -> Place:
    results = [found for row in rows if (found := _under(row, name, judge))]
    shown = f"{name} ({judge})"
    column = Column(shown, measures(results, HEADINGS), heading(results, shown), f"{measures(results, SHORT)} %")
    return column, partial(_under_cell, name, judge)


def _under_cell(name: str, judge: str, arm: Arm) -> Cell:
    result = _under(arm.row, name, judge)
    return rate_cell(result, paper_beside(arm.row, name, result, main=False))


def heading(results: Sequence[dict[str, Any]], name: str) -> str:
    """Heading of a column: what it shows, and its judge."""
    seen = f", {SEEN[view]}" if (view := split_view(name)[1]) else ""
    return f"{name}: {measures(results, HEADINGS)} %{seen} ({judged_by(results)})"


def judged_by(results: Sequence[dict[str, Any]]) -> str:
    """Judges of some results, with a warning if judges or their settings differ."""
    judges = sorted({judge_of(result) for result in results})
    if len(judges) == 1:
        return f"judge {results[0]['judge']} {results[0]['judge_version']}"
    return f"judge {', '.join(judges)}; different judges or judge settings: do not compare"


def facts_of(rows: Rows, sets: Sequence[str]) -> list[str]:
    """Facts of evaluations on benchmarks: selections, missing images, sizes."""
    results = (row["results"][name] for row in rows for name in sets if name in row["results"])
    return sorted({fact for result in results for fact in result["facts"]})

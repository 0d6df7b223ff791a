"""Runs -> arms. An arm is one line of a table: all seeds of one recipe on one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from align.errors import UserError
from align.report.controlled import is_free
from align.report.items import BySeed, rate_of
from align.report.leak_split import pooled_split
from align.report.lmms_results import over_seeds
from align.report.names import arm_name
from align.report.run_results import Evaluated, judge_of

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Arm:
    """A line of a table and its runs, one for each seed."""

    row: dict[str, Any]
    runs: list[Evaluated]

    def items(self, set_name: str, judge: str | None = None) -> BySeed:
        """-> (seed, items with a verdict) of each run on a benchmark. Raises UserError."""
        return [
            (run.row["seed"], run.items(set_name, judge).valid) for run in self.runs if set_name in run.row["results"]
        ]


def arms_of(runs: Sequence[Evaluated]) -> tuple[list[Arm], list[str]]:
    """Group runs that differ only in seed into one arm -> (arms, notes).

    Every other run is its own arm, named by its folder, with a note that says why. In an arm,
    `seed` lists the seeds, counts and n are sums, rates and intervals are over items and seeds.
    `steps` and `most_steps` are the fewest and the most steps of a seed; `stopped` lists the seeds
    that stopped at a bound, and why. A benchmark that is withheld for one seed is withheld for the
    arm. If some seeds lack a benchmark, `seeds` lists the seeds that have it.
    """
    groups: dict[Key, list[Evaluated]] = {}
    for run in runs:
        groups.setdefault(_key(run.row), []).append(run)
    arms, notes = [], []
    for group in groups.values():
        try:
            arms.append(_arm(group))
        except UserError as error:
            notes.append(f"shown as separate rows: {error}")
            arms += [_arm([run], apart=str(run.run.path)) for run in group]
    return arms, notes


def one_by_one(arms: Sequence[Arm]) -> list[Arm]:
    """Each run as its own arm; runs that are named by their folder keep that name."""
    return [_arm([run], apart=arm.row.get("apart")) for arm in arms for run in arm.runs]


def _key(row: dict[str, Any]) -> Key:
    return (*row["variant"].items(), *(row[key] for key in ("track", "model", "method", "name")))


def _arm(runs: list[Evaluated], apart: str | None = None) -> Arm:
    runs = sorted(runs, key=lambda run: run.row["seed"])
    rows = [run.row for run in runs]
    for one, other in pairwise(runs):
        # Without training a seed changes nothing.
        if one.row["seed"] == other.row["seed"] or not one.row["method"]:
            raise UserError(
                f"{one.run.path} and {other.run.path} are both {one.row['name']} of {one.row['model']} with seed "
                f"{one.row['seed']}, so they are not two seeds of one arm. To keep both, give the recipe or the model "
                "another name."
            )
    _refuse_other_arms(runs)
    stops = [f"seed {row['seed']} {row['stopped']}" for row in rows if row["stopped"]]
    row = rows[0] | {
        "seed": ",".join(str(row["seed"]) for row in rows),
        "steps": min(row["steps"] for row in rows),
        "most_steps": max(row["steps"] for row in rows),
        "stopped": "; ".join(stops) or None,
    }
    if apart:
        row["apart"] = apart
    if len(rows) > 1:
        names = dict.fromkeys(name for row in rows for name in row["results"])
        row |= {
            "seconds": sum(row["seconds"] for row in rows),
            "peak_memory_mib": max((row["peak_memory_mib"] or 0 for row in rows), default=0) or None,
            "results": {name: _over_seeds(runs, name) for name in names},
            "external": over_seeds(rows),
        }
    return Arm(row, runs)


def _refuse_other_arms(runs: Sequence[Evaluated]) -> None:
    """Raises UserError if runs of one name differ in more than the seed, e.g. in learning rate."""
    first, *others = (_settings_of(run) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        for key in dict.fromkeys([*first, *other]):
            if first.get(key) != other.get(key):
                raise UserError(
                    f"{runs[0].run.path} and {run.run.path} are both {run.row['name']} of {run.row['model']}, but they "
                    f"differ in more than the seed: {key} is {first.get(key)!r} in one and {other.get(key)!r} in the "
                    "other"
                )


def _settings_of(run: Evaluated) -> dict[str, Any]:
    """Training settings in a run's manifest, without number of processes, seed and folder."""
    manifest = run.manifest
    said = {key: manifest.get(key) for key in ("recipe", "view", "base", "tuning", "trainable_parameters")}
    if start := manifest.get("start"):  # each seed starts from the adapter of its own seed
        said["base"] = f"{str(said['base']).partition(' with ')[0]} with {start}"
    return said | {
        f"train.{key}": value
        for key, value in (manifest.get("train") or {}).items()
        if key not in OF_SEED and not is_free(key)
    }


OF_SEED = ("seed", "data_seed")


def _over_seeds(runs: Sequence[Evaluated], name: str) -> dict[str, Any]:
    having = [run for run in runs if name in run.row["results"]]
    main = [run.row["results"][name] for run in having]
    result = _pooled(having, name, main)
    if len(having) < len(runs):
        result["seeds"] = ",".join(str(run.row["seed"]) for run in having)
    by_judge = [{other["judge"]: other for other in each.get("other_judges", [])} for each in main]
    of_all = [judge for judge in by_judge[0] if all(judge in each for each in by_judge)]
    others = [_pooled(having, name, [each[judge] for each in by_judge]) for judge in of_all]
    return result | ({"other_judges": others} if others else {})


def _pooled(runs: Sequence[Evaluated], name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    _refuse_unlike(runs, name, results)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for result in results:
        counts.update(result["counts"])
        reasons.update(result["invalid_reasons"])
    n = sum(result["n"] for result in results)
    same = ("kind", "judge", "judge_version", "prompt_hash", "judge_settings")
    pooled = {key: results[0][key] for key in same} | {
        "n": n,
        "counts": dict(counts),
        "rate": None,
        "low": None,
        "high": None,
        "bounds": {end: sum(result["bounds"][end] * result["n"] for result in results) / n for end in ("low", "high")},
        "as_judged": None,
        "invalid_reasons": dict(reasons),
        **{key: sum(result.get(key) or 0 for result in results) for key in ("unfinished", "thoughts", "thoughts_cut")},
        "unfinished_reasons": dict(
            sum((Counter(result.get("unfinished_reasons") or {}) for result in results), Counter())
        ),
        "cut_at_max_new_tokens": sum(result["cut_at_max_new_tokens"] for result in results),
        "facts": list(dict.fromkeys(fact for result in results for fact in result["facts"])),
    }
    costs: list[Any] = [result.get("cost") for result in results]
    pooled["cost"] = {key: sum(cost[key] for cost in costs) for key in costs[0]} if all(costs) else None
    if all(result["rate"] is not None for result in results):
        pooled |= rate_of([(run.row["seed"], run.items(name, results[0]["judge"]).valid) for run in runs])
        if all(result["as_judged"] for result in results):
            pooled["as_judged"] = {key: sum(result["as_judged"][key] for result in results) for key in ("good", "n")}
    if all("leak_split" in result for result in results):
        pooled["leak_split"] = pooled_split(runs, name)
    return pooled


def _refuse_unlike(runs: Sequence[Evaluated], name: str, results: list[dict[str, Any]]) -> None:
    """Raises UserError unless all seeds have the same rows, generation, judge and judge prompt."""
    arm = runs[0].row["name"]
    judges = {judge_of(result) for result in results}
    if len(judges) > 1:
        raise UserError(
            f"{name} of {arm} was judged by {' and by '.join(sorted(judges))}. Evaluate it again with one judge."
        )
    if len(kinds := {result["kind"] for result in results}) > 1:
        raise UserError(f"{name} of {arm} has the kinds {', '.join(sorted(kinds))}: two benchmarks have the same name")
    for key in ("rows", "generation"):
        if any(run.settings(name)[key] != runs[0].settings(name)[key] for run in runs):
            seeds = ", ".join(str(run.row["seed"]) for run in runs)
            raise UserError(
                f"{name} of {arm}: its seeds ({seeds}) were evaluated with different {key}. Evaluate it again."
            )


def lacking(arms: Sequence[Arm]) -> list[str]:
    """Lines on seeds, benchmarks and recipes that other arms of the grid have and an arm lacks."""
    notes = []
    trained = [arm for arm in arms if arm.row["method"]]
    for track in dict.fromkeys(arm.row["track"] for arm in trained):
        of_track = [arm for arm in trained if arm.row["track"] == track]
        seeds = sorted({run.row["seed"] for arm in of_track for run in arm.runs})
        for arm in of_track:
            having = {run.row["seed"] for run in arm.runs}
            absent = [str(seed) for seed in seeds if seed not in having]
            if absent and "apart" not in arm.row:
                notes.append(f"{_who(arm)}: no finished run with seed {', '.join(absent)}; other arms have it")
        models = dict.fromkeys(arm.row["model"] for arm in of_track)
        names = dict.fromkeys((arm.row["name"], arm.row["method"]) for arm in of_track)
        for model in models:
            there = {(arm.row["name"], arm.row["method"]) for arm in of_track if arm.row["model"] == model}
            if absent := [name for name, method in names if (name, method) not in there]:
                notes.append(f"{model}, {track} track: no finished run of {', '.join(absent)}; other models have it")
    return notes + _sets_lacking(arms)


def _sets_lacking(arms: Sequence[Arm]) -> list[str]:
    notes = []
    for model in dict.fromkeys(arm.row["model"] for arm in arms):
        of_model = [arm for arm in arms if arm.row["model"] == model]
        sets = dict.fromkeys(name for arm in of_model for name in arm.row["results"])
        for arm in of_model:
            results = arm.row["results"]
            absent = [name for name in sets if name not in results]
            if results and absent:
                notes.append(f"{_who(arm)}: no verdicts on {', '.join(absent)}; other arms have them")
            notes += [
                f"{_who(arm)}: {name} was judged by {judge} for only some of its seeds"
                for name in results
                for judge in _judges_of_some(arm, name)
            ]
            notes += [
                f"{_who(arm)}: {name} was evaluated only for seed {result['seeds']}"
                for name, result in results.items()
                if result.get("seeds")
            ]
    return notes


def _judges_of_some(arm: Arm, name: str) -> list[str]:
    """Judges, without the main judge, that only some seeds have."""
    having = [run.row["results"][name] for run in arm.runs if name in run.row["results"]]
    by_run = [{other["judge"] for other in result.get("other_judges", [])} for result in having]
    return sorted(set().union(*by_run) - set.intersection(*by_run)) if by_run else []


def _who(arm: Arm) -> str:
    return f"{arm.row['model']}, {arm.row['track']} track, {arm_name(arm.row)}"

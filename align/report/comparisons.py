"""Compare arms on the same items and seeds, and conclude in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from align.report.contrasts import DIFFERENCES, Observations, contrast, mcnemar
from align.report.items import Items
from align.report.names import display_name, group_name, is_control, percent, stop_note, variant_of
from align.report.run_results import Evaluated, judge_of

CONTROLLED_PAIRS = (
    ("image_leak", "text_leak"),  # effect of training with an image
    ("image_free", "image_leak"),  # effect of where the harm is stated
    ("caption_free", "image_free"),  # effect of modality, at equal information
    ("image_leak", "shuffled_leak"),  # effect of the matching image
)

OfSeeds = dict[int, Evaluated]
"""{seed: run}"""


def compare_arms(runs: Sequence[Evaluated], tuned: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every pair of arms of each track -> (comparisons, lines on what is left out).

    A pair gives one difference for each benchmark, and interactions of arm and leak. Arms are
    paired within track, model, method and the settings that a sweep varied (except `tuned`
    settings, where each arm has its own best value), on the seeds and items that both have. In the
    controlled track, a run that stopped at its method's bound is not compared with runs that took
    every step. Raises UserError if a folder is damaged.
    """
    groups: dict[tuple[Any, ...], dict[str, OfSeeds]] = {}
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for run in runs:
        row = run.row
        out = row["stopped"] and row["track"] == "controlled"
        notes += [stop_note(row)] if row["stopped"] else []
        if row["method"] and not out:
            variant = tuple((key, value) for key, value in row["variant"].items() if key not in tuned)
            group = groups.setdefault((row["track"], row["model"], row["method"], variant), {})
            group.setdefault(row["name"], {})[row["seed"]] = run
    for (track, model, method, variant), arms in groups.items():
        pairs = _pairs(track, arms)
        identity = {"track": track, "model": model, "method": method, "variant": dict(variant)}
        for a, b in pairs:
            comparisons, left_out = _compare(arms[a], arms[b])
            found += [{"kind": c["kind"], **identity, "a": a, "b": b, **c} for c in comparisons]
            notes += [f"{group_name(identity)}: {a} and {b}: {line}" for line in left_out]
        alone = [name for name in arms if not any(name in pair for pair in pairs)]
        notes += [f"{group_name(identity)}: {name} has no other arm to compare with" for name in alone]
    return found, notes


def _pairs(track: str, arms: dict[str, OfSeeds]) -> list[tuple[str, str]]:
    if track == "controlled":
        return [(a, b) for a, b in CONTROLLED_PAIRS if a in arms and b in arms]
    views = {name: next(iter(arm.values())).row["view"] for name, arm in arms.items()}
    return [(a, b) for a in arms if views[a] == "image" for b in arms if views[b] == "text"]


def _compare(a: OfSeeds, b: OfSeeds) -> tuple[list[dict[str, Any]], list[str]]:
    seeds = [seed for seed in a if seed in b]
    only_one = [seed for seed in dict.fromkeys([*a, *b]) if seed not in seeds]
    notes = [f"seed {seed} finished its training for only one of the two" for seed in only_one]
    results: dict[str, dict[str, Any]] = {}
    observed: dict[str, Observations] = {}
    for name in dict.fromkeys(name for arm in (a, b) for seed in seeds for name in arm[seed].row["results"]):
        runs = [arm[seed] for seed in seeds for arm in (a, b)]
        if reason := _not_comparable(runs, name):
            notes.append(f"{name}: {reason}")
            continue
        seen, left_out = _paired(a, b, name, seeds)
        if left_out:
            notes.append(f"{name}: items left out of the difference, with a verdict in only one arm: {left_out}")
        results[name], observed[name] = runs[0].row["results"][name], seen
    found = [_difference(name, results[name], seen) for name, seen in observed.items()]
    plain = {name: result["kind"] for name, result in results.items() if not is_control(name)}
    for free in (name for name, kind in plain.items() if kind == "vsil_free"):
        for leaky in (name for name, kind in plain.items() if kind == "vsil"):
            found.append(_interaction(free, observed[free], leaky, observed[leaky]))
    return found, notes


def _not_comparable(runs: Sequence[Evaluated], name: str) -> str | None:
    """Why the results of runs on a benchmark cannot be compared; None if they can."""
    for run in runs:
        row = run.row
        if name not in row["results"]:
            return f"{row['name']} seed {row['seed']} was not evaluated on it"
        if row["results"][name]["rate"] is None:
            return f"withheld for {row['name']} seed {row['seed']} (too many responses without a verdict)"
    judges = {judge_of(run.row["results"][name]) for run in runs}
    if len(judges) > 1:
        return f"judged differently ({', '.join(sorted(judges))})"
    asked = [run.settings(name) for run in runs]
    differing = [key for key in ("rows", "generation") if any(one[key] != asked[0][key] for one in asked)]
    return f"evaluated with different settings ({', '.join(differing)})" if differing else None


def _paired(a: OfSeeds, b: OfSeeds, name: str, seeds: Sequence[int]) -> tuple[Observations, int]:
    """-> (a's items minus b's for each seed, number of items that only one of them has)."""
    pairs = [_aligned(a[seed].items(name).valid, b[seed].items(name).valid) for seed in seeds]
    values = np.concatenate([ours.good.astype(float) - theirs.good for ours, theirs, _ in pairs])
    clusters = np.concatenate([ours.clusters for ours, _, _ in pairs])
    of_seed = np.repeat(seeds, [len(ours) for ours, _, _ in pairs])
    return Observations(values, clusters, of_seed), sum(alone for _, _, alone in pairs)


def _aligned(ours: Items, theirs: Items) -> tuple[Items, Items, int]:
    """(Shared items of the first, the same items of the second, number of items that only one has)."""
    if ours.ids == theirs.ids:
        return ours, theirs, 0
    place = {item: i for i, item in enumerate(theirs.ids)}
    both = ours.where(np.array([item in place for item in ours.ids], dtype=bool))
    order = [place[item] for item in both.ids]
    return both, theirs.at(order), len(ours) + len(theirs) - 2 * len(both)


def _difference(name: str, result: dict[str, Any], seen: Observations) -> dict[str, Any]:
    by_seed, all_values, clusters, seeds = [], *(np.asarray(of) for of in (seen.values, seen.clusters, seen.seeds))
    for seed in dict.fromkeys(seeds.tolist()):
        values, of_seed = all_values[seeds == seed], clusters[seeds == seed]
        distinct = len(np.unique(of_seed)) == len(of_seed)
        alone = {"seed": seed, "difference": float(values.mean())}
        # McNemar's test assumes independent pairs; rows with the same image are not independent.
        by_seed.append(alone | {"mcnemar_p_value": mcnemar(values) if distinct else None})
    of_set = {"set_kind": result["kind"], "judge": result["judge"]}
    return _numbers("difference", [name], [seen]) | of_set | {"by_seed": by_seed}


def _interaction(free: str, on_free: Observations, leaky: str, on_leaky: Observations) -> dict[str, Any]:
    """(a - b on the leak-free benchmark) - (a - b on the leaky one)."""
    against = Observations(on_leaky.values, on_leaky.clusters, on_leaky.seeds, weight=-1.0)
    return _numbers("interaction", [free, leaky], [on_free, against])


def _numbers(kind: str, sets: list[str], observed: Sequence[Observations]) -> dict[str, Any]:
    result = contrast(observed, DIFFERENCES)
    seeds = list(dict.fromkeys(np.concatenate([one.seeds for one in observed]).tolist()))
    return {
        "kind": kind,
        "sets": sets,
        "n": sum(len(one.values) for one in observed),
        "seeds": seeds,
        "difference": result.pop("estimate"),
        **result,
    }


def conclusions(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each track, model, method and pair of a leak-free and a leaky benchmark.

    It gives the finding, its intervals, and what it does not show.
    """
    together: dict[Any, list[dict[str, Any]]] = {}
    for c in comparisons:
        together.setdefault((c["track"], c["model"], c["method"], *c["variant"].items()), []).append(c)
    sentences = []
    for c in comparisons:
        alike = together[c["track"], c["model"], c["method"], *c["variant"].items()]
        if c["kind"] == "interaction" and c["track"] == "paper":
            sentences.append(_paper_conclusion(alike, c))
        elif c["kind"] == "interaction" and (c["a"], c["b"]) == ("image_free", "image_leak"):
            sentences.append(_controlled_conclusion(alike, c))
    return sentences


def _paper_conclusion(comparisons: Sequence[dict[str, Any]], interaction: dict[str, Any]) -> str:
    a, b = interaction["a"], interaction["b"]
    free, leaky = interaction["sets"]
    on_leaky = _find(comparisons, interaction, a, b, leaky)
    of = ", ".join([interaction["model"], "paper track", *variant_of(interaction)])
    return (
        f"{of}, {_seeds(interaction)}: where only the image shows the danger, {display_name(a)} compared with "
        f"{display_name(b)} {_effect(comparisons, interaction, a, b, free)}; where the text shows the danger, it "
        f"{_gives(on_leaky)}; the interaction, the difference between these two differences, is {_points(interaction)} "
        "on a scale from -200 to 200. This does not show the cause, because the two arms train on different "
        f"data{_one_seed(interaction)}."
    )


def _controlled_conclusion(comparisons: Sequence[dict[str, Any]], interaction: dict[str, Any]) -> str:
    free, _ = interaction["sets"]
    stated = _effect(comparisons, interaction, "image_free", "image_leak", free)
    pixels = _find(comparisons, interaction, "image_leak", "text_leak", free)
    beside = f"; adding the image to a text that states the harm {_gives(pixels)}" if pixels else ""
    return (
        f"{group_name(interaction)}, {_seeds(interaction)}: on requests whose harm only the image shows, stating the "
        f"harm of training rows in the image alone, instead of in the text, {stated}{beside}; the interaction of arm "
        f"and leak is {_points(interaction)} on a scale from -200 to 200. This does not show how large the effect is "
        f"for other models, data or amounts of training{_one_seed(interaction)}."
    )


def _effect(comparisons: Sequence[dict[str, Any]], like: dict[str, Any], a: str, b: str, free: str) -> str:
    """Effect of arm a over b on a leak-free benchmark and on twins.

    Twins show whether a separates dangers from their harmless twins or only refuses more.
    """
    gain = _find(comparisons, like, a, b, free)
    twins = _find(comparisons, like, a, b, kind="twin")
    if twins is None:
        return f"{_gives(gain)}, but without a twin benchmark this may be plain over-refusal"
    told = {
        1: "distinguishes more unsafe images from their safe twins",
        -1: "distinguishes fewer unsafe images from their safe twins",
        0: "makes no significant difference (95% interval includes 0) in distinguishing unsafe images from their safe twins",
    }[sign(twins)]
    return f"{_gives(gain)}, and {told} ({_points(twins)})"


def _gives(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "was not compared"
    what = "refusals" if difference["judge"] == "refusal_match" else "safe responses"
    more = {
        1: f"gives more {what}",
        -1: f"gives fewer {what}",
        0: f"makes no significant difference (95% interval includes 0) in {what}",
    }
    return f"{more[sign(difference)]} ({_points(difference)})"


def _find(
    comparisons: Sequence[dict[str, Any]], like: dict[str, Any], a: str, b: str, name: str | None = None, kind: str = ""
) -> dict[str, Any] | None:
    """The difference of two arms on a benchmark, or on the first benchmark of a kind.

    No controls.
    """
    return next(
        (
            c
            for c in comparisons
            if c["kind"] == "difference"
            and (c["a"], c["b"]) == (a, b)
            and all(c.get(key) == like.get(key) for key in ("track", "model", "method", "variant"))
            and (c["sets"] == [name] if name else c["set_kind"] == kind and not is_control(c["sets"][0]))
        ),
        None,
    )


def sign(comparison: dict[str, Any]) -> int:
    """Sign of a difference: 1 or -1; 0 if its 95% interval includes 0."""
    if comparison["low"] <= 0 <= comparison["high"]:
        return 0
    return 1 if comparison["low"] > 0 else -1


def _points(c: dict[str, Any]) -> str:
    return f"{100 * c['difference']:+.1f} points [{percent(c['low'])}, {percent(c['high'])}]"


def _seeds(c: dict[str, Any]) -> str:
    return f"seed {c['seeds'][0]}" if len(c["seeds"]) == 1 else f"seeds {', '.join(map(str, c['seeds']))}"


def _one_seed(c: dict[str, Any]) -> str:
    return ". Only one seed was trained; another may give another result" if len(c["seeds"]) == 1 else ""

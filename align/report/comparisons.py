"""Which arms are set against each other, on the same items and seeds, and what can be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.report.collect import row_of, valid_items
from align.report.contrasts import DIFFERENCES, Observations, contrast, mcnemar
from align.report.tables import display_name, is_control, percent
from align.run_folder import RunFolder

CONTROLLED_PAIRS = (
    ("image_leak", "text_leak"),  # having pixels at all
    ("image_free", "image_leak"),  # where the harm is stated
    ("caption_free", "image_free"),  # modality, at equal information
    ("image_leak", "shuffled_leak"),  # what the matching picture adds
)

Arm = dict[int, tuple[RunFolder, dict[str, Any]]]
"""{seed: (run, its row)}"""


def compare_arms(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Every pair of arms that the tracks ask for: a difference for each set, and the interaction of arm and leak.

    Runs are of one track each; arms are paired within track, model and method, on the seeds and items that both have.
    """
    groups: dict[tuple[Any, ...], dict[str, Arm]] = {}
    for run in runs:
        row = row_of(run)
        if row["method"]:
            group = groups.setdefault((row["track"], row["model"], row["method"]), {})
            group.setdefault(row["name"], {})[row["seed"]] = (run, row)
    found = []
    for (track, model, method), arms in groups.items():
        for a, b in _pairs(track, arms):
            identity = {"track": track, "model": model, "method": method, "a": a, "b": b}
            found += [identity | numbers for numbers in _compare(arms[a], arms[b])]
    return [{"kind": comparison.pop("kind"), **comparison} for comparison in found]


def _pairs(track: str, arms: dict[str, Arm]) -> list[tuple[str, str]]:
    if track == "controlled":
        return [(a, b) for a, b in CONTROLLED_PAIRS if a in arms and b in arms]
    views = {name: next(iter(arm.values()))[1]["view"] for name, arm in arms.items()}
    return [(a, b) for a in arms if views[a] == "image" for b in arms if views[b] == "text"]


def _compare(a: Arm, b: Arm) -> list[dict[str, Any]]:
    seeds = [seed for seed in a if seed in b]
    kinds: dict[str, str] = {}
    observed: dict[str, Observations] = {}
    for name in dict.fromkeys(name for seed in seeds for name in a[seed][1]["results"]):
        results = [arm[seed][1]["results"].get(name) for arm in (a, b) for seed in seeds]
        if all(result and result["rate"] is not None for result in results):
            differences = _paired(a, b, name, seeds)
            if differences.values:
                observed[name], kinds[name] = differences, results[0]["kind"]
    found = [_difference(name, differences) for name, differences in observed.items()]
    for free in (name for name, kind in kinds.items() if kind == "vsil_free" and not is_control(name)):
        for leaky in (name for name, kind in kinds.items() if kind == "vsil" and not is_control(name)):
            found.append(_interaction(free, observed[free], leaky, observed[leaky]))
    return found


def _paired(a: Arm, b: Arm, name: str, seeds: Sequence[int]) -> Observations:
    values, clusters, of_seed = [], [], []
    for seed in seeds:
        ours = {item.id: item for item in valid_items(a[seed][0], name)}
        for item in valid_items(b[seed][0], name):
            if item.id in ours:
                values.append(float(ours[item.id].good) - float(item.good))
                clusters.append(item.cluster)
                of_seed.append(seed)
    return Observations(values, clusters, of_seed)


def _difference(name: str, seen: Observations) -> dict[str, Any]:
    numbers = _numbers("difference", [name], [seen])
    by_seed = {
        seed: [v for v, s in zip(seen.values, seen.seeds, strict=True) if s == seed] for seed in numbers["seeds"]
    }
    tests = [
        {"seed": seed, "difference": sum(values) / len(values), "p_value": mcnemar(values)}
        for seed, values in by_seed.items()
    ]
    if len(tests) == 1 and len(set(seen.clusters)) == len(seen.values):
        numbers["p_value"] = tests[0]["p_value"]  # exact, where nothing but the items is a sample
    return numbers | {"by_seed": tests}


def _interaction(free: str, on_free: Observations, leaky: str, on_leaky: Observations) -> dict[str, Any]:
    """(a - b on the leak-free set) - (a - b on the leaky one)."""
    against = Observations(on_leaky.values, on_leaky.clusters, on_leaky.seeds, weight=-1.0)
    return _numbers("interaction", [free, leaky], [on_free, against])


def _numbers(kind: str, sets: list[str], observed: Sequence[Observations]) -> dict[str, Any]:
    result = contrast(observed, DIFFERENCES)
    seeds = list(dict.fromkeys(seed for one in observed for seed in one.seeds))
    return {
        "kind": kind,
        "sets": sets,
        "n": sum(len(one.values) for one in observed),
        "seeds": seeds,
        "difference": result.pop("estimate"),
        **result,
    }


def markdown(comparisons: Sequence[dict[str, Any]]) -> str:
    """Comparisons as a markdown table."""
    lines = [["model", "difference", "set", "points [95% interval]", "n", "seeds", "p"], ["---"] * 7]
    for c in comparisons:
        between = f"{display_name(c['a'])} minus {display_name(c['b'])}"
        where = c["sets"][0] if c["kind"] == "difference" else f"interaction: {c['sets'][0]} minus {c['sets'][1]}"
        points = f"{100 * c['difference']:+.1f} [{percent(c['low'])}, {percent(c['high'])}]"
        lines.append(
            [c["model"], between, where, points, str(c["n"]), ", ".join(map(str, c["seeds"])), f"{c['p_value']:.2g}"]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def conclusions(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """For each track, model, method and pair of a leak-free and a leaky set, one sentence.

    It says what was found, how sure that is, and what it does not show.
    """
    sentences = []
    for c in comparisons:
        if c["kind"] != "interaction":
            continue
        if c["track"] == "paper":
            sentences.append(_paper_conclusion(c, _on_free(comparisons, c, c["a"], c["b"])))
        elif (c["a"], c["b"]) == ("image_free", "image_leak"):
            pixels = _on_free(comparisons, c, "image_leak", "text_leak")
            sentences.append(_controlled_conclusion(c, _on_free(comparisons, c, c["a"], c["b"]), pixels))
    return sentences


def _on_free(comparisons: Sequence[dict[str, Any]], like: dict[str, Any], a: str, b: str) -> dict[str, Any] | None:
    """The difference of two arms on the leak-free set of an interaction."""
    same = ("track", "model", "method")
    return next(
        (
            c
            for c in comparisons
            if c["kind"] == "difference"
            and c["sets"] == like["sets"][:1]
            and (c["a"], c["b"]) == (a, b)
            and all(c[key] == like[key] for key in same)
        ),
        None,
    )


def _paper_conclusion(interaction: dict[str, Any], free: dict[str, Any] | None) -> str:
    a, b = display_name(interaction["a"]), display_name(interaction["b"])
    sign = _sign(interaction)
    what = {
        1: f"{a} gains more over {b} where only the image shows the danger than where the text already tells it",
        -1: f"{a} gains less over {b} where only the image shows the danger than where the text already tells it",
        0: f"no difference between {a}'s gain over {b} with and without leak could be told from chance",
    }[sign]
    gain = f"; on {interaction['sets'][0]} alone the gain is {_points(free)}" if free else ""
    return (
        f"{interaction['model']}, paper track: {what} (interaction {_points(interaction)}, {_seeds(interaction)}{gain}); "
        f"this does not show why, since the two arms train on different data{_one_seed(interaction)}."
    )


def _controlled_conclusion(
    interaction: dict[str, Any], stated: dict[str, Any] | None, pixels: dict[str, Any] | None
) -> str:
    nothing = "no difference that could be told from chance"
    told = {
        1: "stating the harm in the image alone instead of the text protects more",
        -1: "stating the harm in the image alone instead of the text protects less",
        0: f"where the harm is stated makes {nothing}",
    }[_sign(stated)]
    if pixels:
        told += {
            1: ", and pixels beside a telling text protect more",
            -1: ", and pixels beside a telling text protect less",
            0: f", while pixels beside a telling text make {nothing}",
        }[_sign(pixels)]
    parts = [f"stated in the image alone instead of the text {_points(stated)}" if stated else ""]
    parts.append(f"pixels beside a telling text {_points(pixels)}" if pixels else "")
    return (
        f"{interaction['model']}, controlled track: on {interaction['sets'][0]} {told} ({'; '.join(filter(None, parts))}; "
        f"arm x leak {_points(interaction)}; {_seeds(interaction)}); this does not show how large the effect is for other "
        f"models, data or amounts of training{_one_seed(interaction)}."
    )


def _sign(comparison: dict[str, Any] | None) -> int:
    """Which way a difference goes, 0 where its interval holds 0."""
    if comparison is None or comparison["low"] <= 0 <= comparison["high"]:
        return 0
    return 1 if comparison["low"] > 0 else -1


def _points(c: dict[str, Any]) -> str:
    return f"{100 * c['difference']:+.1f} points [{percent(c['low'])}, {percent(c['high'])}]"


def _seeds(c: dict[str, Any]) -> str:
    return f"seed {c['seeds'][0]}" if len(c["seeds"]) == 1 else f"seeds {', '.join(map(str, c['seeds']))}"


def _one_seed(c: dict[str, Any]) -> str:
    return ", nor what another seed would give" if len(c["seeds"]) == 1 else ""

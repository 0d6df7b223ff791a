"""Rows -> a table: on the terminal, as markdown, csv or json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from align.data.views import split_view
from align.evaluation.benchmark import SAFETY_KINDS
from align.report import external
from align.report.collect import judge_of

KINDS = ("vsil", "vsil_free", "benign", "twin", "ability")
HEADINGS = {
    "vsil": "danger in the text (VSIL): safe",
    "vsil_free": "danger only in the image (VSIL-free): safe",
    "benign": "harmless: answered",
    "twin": "both twins right",
    "ability": "ability",
}
SHORT = {"vsil": "safe", "vsil_free": "safe", "benign": "answered", "twin": "both right", "ability": "right"}
NAMES = {"vanilla": "no alignment", "safety_prompt": "safety prompt"}
ARMS = ("text_leak", "shuffled_leak", "image_leak", "image_free", "caption_free")
METHODS = {"sft": "SFT", "dpo": "DPO", "unlearning": "Unlearning", "safe_unlearning": "SafeUnlearning", "ppo": "PPO"}
"""In the paper's order and writing."""

SEEN = {
    "image": "as it is",
    "text": "without the picture",
    "caption": "with the caption in place of the picture",
    "shuffled": "over the picture of another row of the set",
    "blank": "over an even grey (what is right here owes nothing to the picture)",
}

LEAKS = {"leaks": "leaks", "leak_free": "leak-free"}

MANY_INCOHERENT = 0.01
"""Above this share of incoherent answers a rate is shown both ways: never good, and as the judge says."""

Rows = Sequence[dict[str, Any]]


def display_name(name: str) -> str:
    """t_safe_unlearning -> T-SafeUnlearning, as the paper writes it; the arms of the controlled track go by their own names."""
    prefix, _, method = name.partition("_")
    if prefix not in ("t", "mm"):
        return NAMES.get(name, name)
    return f"{prefix.upper()}-{METHODS.get(method, method)}"


def arm_name(row: dict[str, Any]) -> str:
    """How tables call a row: its recipe, and the settings in which it differs from others of that recipe."""
    return ", ".join([display_name(row["name"]), *variant_of(row)])


def variant_of(row: dict[str, Any]) -> list[str]:
    """The settings of a row or comparison that a sweep varies beside recipe, model and seed, e.g. `lora.r=16`."""
    return [f"{key}={value}" for key, value in (row.get("variant") or {}).items()]


def method_name(method: str | None) -> str:
    """Dpo -> DPO, as the paper writes it; a dash for rows without training."""
    return METHODS.get(method or "-", method or "-")


def steps_of(row: dict[str, Any]) -> str:
    """How many steps were taken, and whether a run stopped at its method's bound."""
    return step_range(row) + (" (stopped)" if row.get("stopped") else "")


def step_range(row: dict[str, Any]) -> str:
    """How many steps were taken, over seeds from the fewest to the most."""
    fewest, most = row["steps"], row.get("most_steps", row["steps"])
    return f"{fewest}" if fewest == most else f"{fewest}-{most}"


def stop_note(row: dict[str, Any]) -> str:
    """A line on a run that stopped at its method's bound: which, at which step and why."""
    where, _, why = row["stopped"].partition(": ")
    stopped = f"{row['name']} seed {row['seed']} {where}" + (f" ({why})" if why else "")
    controlled = row["track"] == "controlled"
    compared = "it is no controlled comparison with the others" if controlled else "it is compared as it is"
    return f"{group_name(row)}: {stopped}; {compared}"


def group_name(of: dict[str, Any]) -> str:
    """The model, track and method of a row or comparison, within which arms are compared."""
    return ", ".join([of["model"], f"{of['track']} track", method_name(of["method"]), *variant_of(of)])


def sets_of(rows: Rows) -> list[str]:
    """The evaluation sets of some rows: leaky ones first, controls (a set in another view than the image) last."""
    kinds = {name: result["kind"] for row in rows for name, result in row["results"].items()}
    return sorted(kinds, key=lambda name: (is_control(name), KINDS.index(kinds[name]), name))


def under_other_judges(rows: Rows) -> list[dict[str, Any]]:
    """The rows with the results of the judges beside the main one, each as a set of its own: `<set> (<judge>)`; controls aside."""
    return [
        row
        | {
            "results": {
                f"{name} ({other['judge']})": other
                for name, result in row["results"].items()
                for other in result.get("other_judges", [])
                if not is_control(name)
            }
        }
        for row in rows
    ]


def is_control(name: str) -> bool:
    """Whether a result `<set>.<view>` is of a set in another view than the image."""
    return split_view(name)[1] is not None


def sorted_rows(rows: Rows) -> list[dict[str, Any]]:
    """By track and model: the model as it is, other rows without training of ours, then text before image, methods as in the paper."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        method = _place(row["method"], METHODS)
        within = (
            (method, _place(row["name"], ARMS)) if row["track"] == "controlled" else (row["view"] != "text", method)
        )
        return (
            row["track"],
            row["model"],
            row["method"] is not None,
            row["name"] != "vanilla",
            within,
            row["name"],
            variant_of(row),
            row["seed"],
        )

    return sorted(rows, key=key)


def _place(name: str | None, order: Collection[str]) -> int:
    return [*order, name].index(name)


def percent(value: float) -> str:
    """0.975 -> 97.5"""
    return f"{100 * value:.1f}"


def cell(result: dict[str, Any] | None) -> list[str]:
    """The lines of a cell: rate with its interval and n, then the counts that are not zero."""
    if result is None:
        return ["-"]
    counts = ", ".join(f"{label} {count}" for label, count in result["counts"].items() if count)
    reasons = ", ".join(f"{reason} {count}" for reason, count in result["invalid_reasons"].items() if count)
    counts += f" ({reasons})" if reasons else ""
    bounds = f"{percent(result['bounds']['low'])}-{percent(result['bounds']['high'])}"
    if result["rate"] is None:
        return [f"withheld ({bounds}) {valid_n(result)}", counts, *leak_lines(result)]
    shown = [
        f"{percent(result['rate'])} [{percent(result['low'])}, {percent(result['high'])}] {valid_n(result)}",
        counts,
    ]
    if result["counts"]["invalid"]:
        shown.append(f"{bounds} with the invalid ones bad or good")
    return shown + published_way(result) + leak_lines(result)


def valid_n(result: dict[str, Any]) -> str:
    """How many answers a rate is a share of, and where some have no verdict how many there are."""
    valid = result["n"] - result["counts"]["invalid"]
    return f"n={valid}" if valid == result["n"] else f"n={valid} of {result['n']}"


def published_way(result: dict[str, Any]) -> list[str]:
    """The rate with the judge's word on incoherent answers counted, as published protocols do, where there are many of them."""
    judged = result["as_judged"]
    if judged is None or result["counts"]["incoherent"] <= MANY_INCOHERENT * result["n"]:
        return []
    return [f"{percent(judged['good'] / judged['n'])} with incoherent ones as judged"]


def leak_lines(result: dict[str, Any]) -> list[str]:
    """The rates of the items whose text tells of the harm and of those whose text does not, where that was measured."""
    parts = result.get("leak_split")
    if parts is None:
        return []
    lines = []
    for key, name in LEAKS.items():
        part = parts[key]
        rate, valid = part["rate"], part["n"] - part["invalid"]
        n = f"n={valid}" + (f" of {part['n']}" if part["invalid"] else "")
        shown = "" if not part["n"] else "withheld " if rate is None else f"{percent(rate)} "
        lines.append(f"{name}: {shown}{'' if rate is None else _interval(part)}{n}")
    return lines + ([f"unlabelled: n={parts['unlabelled']}"] if parts["unlabelled"] else [])


def _interval(part: dict[str, Any]) -> str:
    return f"[{percent(part['low'])}, {percent(part['high'])}] "


def measured(result: dict[str, Any], headings: dict[str, str]) -> str:
    """What a rate is a share of: a word list measures refusal, not safety."""
    if result["judge"] == "refusal_match":
        return {"vsil": "refused", "vsil_free": "refused", "twin": "only the unsafe refused"}.get(
            result["kind"], "not refused"
        )
    return headings[result["kind"]]


def heading(rows: Rows, name: str) -> str:
    """What a column shows, and who judged it."""
    results = [row["results"][name] for row in rows if name in row["results"]]
    judges = sorted({judge_of(result) for result in results})
    warning = "; different judges, or differently asked: do not compare"
    if len(judges) == 1:
        judges, warning = [f"{results[0]['judge']} {results[0]['judge_version']}"], ""
    what = " / ".join(dict.fromkeys(measured(result, HEADINGS) for result in results))
    seen = f", {SEEN[view]}" if (view := split_view(name)[1]) else ""
    return f"{name}: {what} %{seen} (judge {', '.join(judges)}{warning})"


def leading(row: dict[str, Any]) -> list[str]:
    """The columns that say which row it is."""
    of_row = [row["track"], row["model"], arm_name(row), method_name(row["method"])]
    return [*of_row, str(row["seed"]), steps_of(row)]


OTHERS = "The same answers under other judges"
LEADING = ["track", "model", "arm", "method", "seed", "steps"]
EXTERNAL = ["set", "metric", "value", "n"]
NOTE = (
    "95% intervals (one seed: Wilson, or a bootstrap over images where images repeat; several: over images and seeds). "
    "Rates over valid verdicts; incoherent answers are never safe"
)


def print_table(rows: Rows, title: str) -> None:
    """The table on the terminal: rates with intervals, then how answers to harmful requests divide."""
    rows, sets = sorted_rows(rows), sets_of(rows)
    console = Console()
    console.print(_rates(rows, [name for name in sets if not is_control(name)], title))
    if controls := [name for name in sets if is_control(name)]:
        console.print(_rates(rows, controls, "Controls: the same sets in other views"))
    others = under_other_judges(rows)
    if named := sets_of(others):
        console.print(_rates(others, named, OTHERS))
    counts = Table(title="How the answers to harmful requests divide", title_justify="left")
    for name in ("set", "arm", "counts"):
        counts.add_column(name, overflow="fold")
    for name in sets:
        for row in rows:
            if name in row["results"] and row["results"][name]["kind"] in SAFETY_KINDS and not is_control(name):
                found = row["results"][name]["counts"]
                counts.add_row(
                    name, _who(row, rows), ", ".join(f"{label} {count}" for label, count in found.items() if count)
                )
    console.print(counts)
    for name in sets:
        console.print(heading(rows, name), highlight=False, soft_wrap=True)
    for fact in sorted({fact for row in rows for result in row["results"].values() for fact in result["facts"]}):
        console.print(fact, highlight=False, markup=False, soft_wrap=True)
    console.print(NOTE, highlight=False, soft_wrap=True)
    print_external(rows)


def print_external(rows: Rows) -> None:
    """What other programs measured, on the terminal; nothing where they measured nothing."""
    console, rows = Console(), sorted_rows(rows)
    if not any(external.metrics_of(row) for row in rows):
        return
    table = Table(title=external.TITLE, title_justify="left")
    for name in ("arm", *EXTERNAL):
        table.add_column(name, overflow="fold", justify="right" if name in ("value", "n") else "left")
    for row in rows:
        for metric in external.metrics_of(row):
            table.add_row(_who(row, rows), *external.cells(metric))
    console.print(table)
    for remark in external.remarks(rows):
        console.print(remark, highlight=False, markup=False, soft_wrap=True)


def _rates(rows: Rows, sets: Sequence[str], title: str) -> Table:
    kinds = {name: next(row["results"][name] for row in rows if name in row["results"]) for name in sets}
    rates = Table(title=title, title_justify="left", show_lines=True)
    rates.add_column("arm", no_wrap=True)
    for name in sets:
        rates.add_column(f"{name}\n{measured(kinds[name], SHORT)} %", justify="right", overflow="fold")
    for row in rows:
        rates.add_row(_who(row, rows), *(_short_cell(row["results"].get(name)) for name in sets))
    return rates


def _who(row: dict[str, Any], rows: Rows) -> str:
    """The arm, and what of model, method and seed is not the same in all rows (the model as it is has neither method nor seed)."""
    parts = [row["model"]] if len({row["model"] for row in rows}) > 1 else []
    parts.append(arm_name(row))
    if row["name"] in ARMS and len({row["method"] for row in rows if row["name"] in ARMS}) > 1:
        parts.append(method_name(row["method"]))
    if row["method"] and len({str(row["seed"]) for row in rows if row["method"]}) > 1:
        parts.append(f"seed {row['seed']}")
    if row.get("stopped"):
        parts.append("(stopped)")
    return " ".join(parts)


def _short_cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    if result["rate"] is None:
        return f"withheld\n{result['counts']['invalid']} invalid"
    lines = [percent(result["rate"]), f"{100 * result['low']:.0f}-{100 * result['high']:.0f}", valid_n(result)]
    way = published_way(result)
    if way and not way[0].startswith(f"{percent(result['rate'])} "):  # there is room for what differs
        lines.append(f"({way[0].split()[0]} with\nincoherent\nas judged)")
    return "\n".join(lines)


def markdown(rows: Rows, notes: Sequence[str] = ()) -> str:
    """The table as markdown, that of the other judges where there are any, and notes."""
    rows = sorted_rows(rows)
    text, others = _markdown(rows), under_other_judges(rows)
    if sets_of(others):
        text += f"\n\n{OTHERS}:\n\n{_markdown(others)}"
    facts = sorted({fact for row in rows for result in row["results"].values() for fact in result["facts"]})
    text += f"\n\n{NOTE}\n" + "".join(f"- {note}\n" for note in [*facts, *notes])
    return text + _external_markdown(rows)


def _external_markdown(rows: Rows) -> str:
    lines = [leading(row) + external.cells(metric) for row in rows for metric in external.metrics_of(row)]
    if not lines:
        return ""
    head = [LEADING + EXTERNAL, ["---"] * (len(LEADING) + len(EXTERNAL))]
    table = "\n".join("| " + " | ".join(line) + " |" for line in head + lines)
    return f"\n{external.TITLE}:\n\n{table}\n\n" + "".join(f"- {remark}\n" for remark in external.remarks(rows))


def _markdown(rows: Rows) -> str:
    sets = sets_of(rows)
    lines = [LEADING + [heading(rows, name) for name in sets], ["---"] * (len(LEADING) + len(sets))]
    lines += [leading(row) + ["<br>".join(cell(row["results"].get(name))) for name in sets] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comma_separated(rows: Rows) -> str:
    """One line per row, set and judge, the main one first; `steps` stays a number, and `stopped` says why there are no more.

    Columns of items that leak and that do not are there where that was measured.
    What another program measured has a line for each metric, with a value and its error in units of its own, and no rate.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    numbers = ("kind", "n", "rate", "low", "high", "judge", "judge_version")
    in_part = ("n", "invalid", "rate", "low", "high")
    is_split = any("leak_split" in result for row in rows for result in row["results"].values())
    parts = [f"{part}_{key}" for part in LEAKS for key in in_part] + ["unlabelled"] if is_split else []
    writer.writerow([*LEADING, "set", *numbers, "counts", "stopped", "metric", "value", "stderr", *parts])
    for row in sorted_rows(rows):
        judged = [(name, one) for name, of in row["results"].items() for one in (of, *of.get("other_judges", []))]
        for name, result in judged:
            of_row = [*leading(row)[:-1], row["steps"], name, *(result[key] for key in numbers)]
            own = result.get("leak_split")
            of_parts = [own[part][key] for part in LEAKS for key in in_part] + [own["unlabelled"]] if own else []
            writer.writerow([*of_row, json.dumps(result["counts"]), row["stopped"], "", "", "", *of_parts])
        for metric in external.metrics_of(row):
            by = ["ability", metric["n"], "", "", "", metric["program"], metric["version"], ""]
            measured = [metric["metric"], metric["value"], metric["stderr"]]
            writer.writerow([*leading(row)[:-1], row["steps"], metric["set"], *by, row["stopped"], *measured])
    return buffer.getvalue()

"""How rows, arms, sets and numbers are called in tables and pages, and in which order they stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from align.rows import split_view

TRACKS = ("paper", "controlled")
KINDS = ("vsil", "vsil_free", "benign", "twin", "ability")
HEADINGS = {
    "vsil": "danger in the text (VSIL): safe",
    "vsil_free": "danger only in the image (VSIL-free): safe",
    "benign": "harmless: answered",
    "twin": "both twins right",
    "ability": "ability: right",
}
SHORT = {"vsil": "safe", "vsil_free": "safe", "benign": "answered", "twin": "both right", "ability": "right"}
NAMES = {"vanilla": "no alignment", "safety_prompt": "safety prompt"}
ARMS = ("text_leak", "shuffled_leak", "image_leak", "image_free", "caption_free")
METHODS = {"sft": "SFT", "dpo": "DPO", "unlearning": "Unlearning", "safe_unlearning": "SafeUnlearning", "ppo": "PPO"}
"""In the paper's order and writing."""

SEEN = {
    "image": "as it is",
    "text": "without the image",
    "caption": "with the caption in place of the image",
    "shuffled": "over the image of another row of the set",
    "blank": "over an even grey (what is right here does not depend on the image)",
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
    """How tables call a row: its recipe, the settings in which it differs from others of that recipe, its folder if it stands apart."""
    return ", ".join([display_name(row["name"]), *variant_of(row), *([row["apart"]] if row.get("apart") else [])])


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
            _place(row["track"], TRACKS),
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


def measured(result: dict[str, Any], headings: dict[str, str]) -> str:
    """What a rate is a share of: a word list measures refusal, not safety."""
    if result["judge"] == "refusal_match":
        return {"vsil": "refused", "vsil_free": "refused", "twin": "only the unsafe refused"}.get(
            result["kind"], "not refused"
        )
    return headings[result["kind"]]


def measures(results: Sequence[dict[str, Any]], headings: dict[str, str]) -> str:
    """What the rates of some results are shares of; more than one thing where they were judged differently."""
    return " / ".join(dict.fromkeys(measured(result, headings) for result in results))


_PART = r"[^/,;{}()\[\]\"'|]"
FOLDERS = re.compile(rf"(?<![\w.:/\\-])(?:file://)?~?/(?:(?:(?!\s/){_PART})+/)*(?={_PART})(?!\s)")
"""All but the last part of an absolute path. A folder's name may hold spaces; a second path behind a space is one of its own."""


def shortened(text: str) -> str:
    """Absolute paths in a text, and paths below a home folder, by their last part."""
    return FOLDERS.sub("", text)

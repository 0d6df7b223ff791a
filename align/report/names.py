"""Names and order of rows, arms, benchmarks and numbers in tables and pages."""

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
    "benign": "benign requests: answered",
    "twin": "both twins correct",
    "ability": "ability: correct",
}
SHORT = {"vsil": "safe", "vsil_free": "safe", "benign": "answered", "twin": "both right", "ability": "right"}
NAMES = {
    "vanilla": "no alignment",
    "safety_prompt": "safety prompt",
    "safety_template": "safety template",
    "adashield_s": "AdaShield-S",
    "ecso": "ECSO",
    "best_of_n": "best of n",
}
ARMS = ("text_leak", "shuffled_leak", "image_leak", "image_free", "caption_free")
METHODS = {
    "sft": "SFT",
    "dpo": "DPO",
    "unlearning": "Unlearning",
    "safe_unlearning": "SafeUnlearning",
    "ppo": "PPO",
    "grpo": "GRPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "reward": "Reward",
}
"""The paper's methods in its order and spelling, then the others."""

SEEN = {
    "image": "with its image",
    "text": "without the image",
    "caption": "with the caption instead of the image",
    "shuffled": "with the image of another row",
    "blank": "with a uniform grey image (the correct response here does not depend on the image)",
}

LEAKS = {"leaks": "leaks", "leak_free": "leak-free"}

MANY_INCOHERENT = 0.01
"""Above this share of incoherent responses a second rate is shown, with them as judged."""

Rows = Sequence[dict[str, Any]]


def display_name(name: str) -> str:
    """t_safe_unlearning -> T-SafeUnlearning, the paper's spelling; other names are unchanged."""
    prefix, _, method = name.partition("_")
    if prefix not in ("t", "mm"):
        return NAMES.get(name, name)
    return f"{prefix.upper()}-{METHODS.get(method, method)}"


def arm_name(row: dict[str, Any]) -> str:
    """A row's name in tables: recipe, swept settings, folder if it is a separate row."""
    return ", ".join([display_name(row["name"]), *variant_of(row), *([row["apart"]] if row.get("apart") else [])])


def variant_of(row: dict[str, Any]) -> list[str]:
    """Settings that a sweep varies in addition to recipe, model and seed, e.g. `lora.r=16`."""
    return [f"{key}={value}" for key, value in (row.get("variant") or {}).items()]


def method_name(method: str | None) -> str:
    """Dpo -> DPO, the paper's spelling; a dash for rows without training."""
    return METHODS.get(method or "-", method or "-")


def steps_of(row: dict[str, Any]) -> str:
    """Number of steps, and whether a run stopped at its method's bound."""
    return step_range(row) + (" (stopped)" if row.get("stopped") else "")


def step_range(row: dict[str, Any]) -> str:
    """Number of steps; over seeds the fewest and the most."""
    fewest, most = row["steps"], row.get("most_steps", row["steps"])
    return f"{fewest}" if fewest == most else f"{fewest}-{most}"


def stop_note(row: dict[str, Any]) -> str:
    """A line on a run that stopped at its method's bound: name, step and reason."""
    where, _, why = row["stopped"].partition(": ")
    stopped = f"{row['name']} seed {row['seed']} {where}" + (f" ({why})" if why else "")
    controlled = row["track"] == "controlled"
    compared = (
        "it took fewer steps, so it is not compared with the others"
        if controlled
        else "it is compared despite fewer steps"
    )
    return f"{group_name(row)}: {stopped}; {compared}"


def group_name(of: dict[str, Any]) -> str:
    """Model, track and method of a row or comparison; arms are compared within these."""
    return ", ".join([of["model"], f"{of['track']} track", method_name(of["method"]), *variant_of(of)])


def sets_of(rows: Rows) -> list[str]:
    """Benchmarks of some rows: leaky ones first, controls (benchmarks in another view) last."""
    kinds = {name: result["kind"] for row in rows for name, result in row["results"].items()}
    return sorted(kinds, key=lambda name: (is_control(name), KINDS.index(kinds[name]), name))


def is_control(name: str) -> bool:
    """Whether a result `<benchmark>.<view>` is for a benchmark in another view than the image."""
    return split_view(name)[1] is not None


def sorted_rows(rows: Rows) -> list[dict[str, Any]]:
    """Sort by track, model, untrained rows first, text before image, paper's methods."""

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
    """What a rate measures; refusal_match measures refusal, not safety."""
    if result["judge"] == "refusal_match":
        return {"vsil": "refused", "vsil_free": "refused", "twin": "only the unsafe refused"}.get(
            result["kind"], "not refused"
        )
    return headings[result["kind"]]


def measures(results: Sequence[dict[str, Any]], headings: dict[str, str]) -> str:
    """What the rates of some results measure; several things if they were judged differently."""
    return " / ".join(dict.fromkeys(measured(result, headings) for result in results))


_PART = r"[^/,;{}()\[\]\"'|]"
FOLDERS = re.compile(rf"(?<![\w.:/\\-])(?:file://)?~?/(?:(?:(?!\s/){_PART})+/)*(?={_PART})(?!\s)")
"""All but the last part of an absolute path.

Folder names may have spaces; ` /` begins a new path.
"""


def shortened(text: str) -> str:
    """Replace absolute paths in a text, and paths below a home folder, by their last part."""
    return FOLDERS.sub("", text)

"""Check the types of the values that tables read from a run folder.

A wrong value is an error with file and key; it never becomes a number in a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.report.names import KINDS

Holds = Callable[[Any], bool]
Form = Mapping[str, tuple[Holds, str]]
"""{key: (check of a value, what is expected)}"""


def number(value: Any) -> bool:
    """A finite number; not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> bool:
    """A whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def text(value: Any) -> bool:
    """A string."""
    return isinstance(value, str)


def share(value: Any) -> bool:
    """A number from 0 to 1."""
    return number(value) and 0 <= value <= 1


def texts(value: Any) -> bool:
    """A list of strings."""
    return isinstance(value, list) and all(map(text, value))


def counts(value: Any) -> bool:
    """{label: how many}."""
    return isinstance(value, dict) and all(map(count, value.values()))


def mapping(value: Any) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def or_none(holds: Holds) -> Holds:
    """The same check, but null is allowed."""
    return lambda value: value is None or holds(value)


MANIFEST: Form = {
    "track": (text, "a string"),
    "recipe": (text, "a string"),
    "model": (text, "a string"),
    "method": (or_none(text), "a string or null"),
    "view": (or_none(text), "a string or null"),
    "seed": (count, "a whole number"),
    "steps": (count, "a whole number"),
    "trainable_parameters": (count, "a whole number"),
    "seconds": (number, "a number"),
    "peak_memory_mib": (or_none(number), "a number or null"),
}
LATER: Form = {
    "variant": (mapping, "an object"),
    "stopped": (text, "a string"),
    "tuning": (text, "a string"),
    "defence": (text, "a string"),
    "defence_settings": (mapping, "an object"),
    "parameters": (mapping, "an object"),
    "data": (mapping, "an object"),
    "versions": (mapping, "an object"),
    "command": (texts, "a list of strings"),
    "train": (mapping, "an object"),
    "held_out": (mapping, "an object"),
}
"""Keys that a manifest may lack."""
ACCURACY: Form = {
    "n": (lambda value: count(value) and value > 0, "a whole number above 0"),
    "accuracy": (share, "a number from 0 to 1"),
    "low": (share, "a number from 0 to 1"),
    "high": (share, "a number from 0 to 1"),
}
HELD_OUT: Form = {**ACCURACY, "margin": (number, "a number"), "by_category": (mapping, "an object")}
"""A reward model's accuracy on held-out pairs, if there are any."""
SUMMARY: Form = {
    "main": (lambda value: isinstance(value, bool), "true or false"),
    "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
    "n": (lambda value: count(value) and value > 0, "a whole number above 0"),
    "counts": (counts, "{label: how many}"),
    "rate": (or_none(share), "a number from 0 to 1, or null"),
    "low": (or_none(share), "a number from 0 to 1, or null"),
    "high": (or_none(share), "a number from 0 to 1, or null"),
    "judge": (text, "a string"),
    "judge_version": (text, "a string"),
    "bounds": (lambda value: mapping(value) and share(value.get("low")) and share(value.get("high")), "low and high"),
    "invalid_reasons": (counts, "{reason: how many}"),
    "cut_at_max_new_tokens": (count, "a whole number"),
    "facts": (texts, "a list of strings"),
}
SUMMARY_LATER: Form = {"cost": (lambda value: mapping(value) and counts(value), "{what: how many}")}
"""Keys that a summary may lack."""
SETTINGS: Form = {"rows": (text, "a string"), "generation": (mapping, "an object")}
METRIC: Form = {
    "set": (text, "a string"),
    "metric": (text, "a string"),
    "filter": (text, "a string"),
    "value": (number, "a number"),
    "stderr": (or_none(number), "a number or null"),
    "n": (or_none(count), "a whole number or null"),
    "higher_is_better": (lambda value: value in (None, True, False), "true, false or null"),
}
MEASURED: Form = {
    "program": (text, "a string"),
    "version": (or_none(text), "a string or null"),
    "facts": (texts, "a list of strings"),
    "metrics": (lambda value: isinstance(value, list), "a list"),
}


def checked(file: Path, value: Any, form: Form, later: Form | None = None) -> dict[str, Any]:
    """Check a JSON object against a form and, for optional keys, `later`.

    Raises UserError with file and key.
    """
    if not isinstance(value, dict):
        raise UserError(f"{file}: found {type(value).__name__}, expected an object with {', '.join(form)}")
    for key, (holds, expected) in form.items():
        if key not in value or not holds(value[key]):
            found = repr(value[key])[:60] if key in value else "nothing"
            raise UserError(f"{file}: `{key}`: found {found}, expected {expected}")
    for key, (holds, expected) in (later or {}).items():
        if value.get(key) is not None and not holds(value[key]):
            raise UserError(f"{file}: `{key}`: found {repr(value[key])[:60]}, expected {expected} or nothing")
    return value


def summary_of(file: Path, value: Any) -> dict[str, Any]:
    """A summary whose counts sum to n. Raises UserError."""
    summary = checked(file, value, SUMMARY, SUMMARY_LATER)
    if sum(summary["counts"].values()) != summary["n"]:
        raise UserError(
            f"{file}: counts sum to {sum(summary['counts'].values())}, but n is {summary['n']}. Evaluate it again."
        )
    if (summary["rate"] is None) != (summary["low"] is None) or (summary["rate"] is None) != (summary["high"] is None):
        raise UserError(f"{file}: found a rate without an interval, or an interval without a rate. Evaluate it again.")
    judged = summary.get("as_judged")
    if judged is not None and not (
        mapping(judged) and count(judged.get("good")) and count(judged.get("n")) and judged["n"]
    ):
        raise UserError(f"{file}: `as_judged`: found {repr(judged)[:60]}, expected good and n, or null")
    return summary

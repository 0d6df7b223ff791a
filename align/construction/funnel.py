"""The funnel: how many items entered and left each step, by reason and category, with calls, time and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from align.construction.item import KEPT, STATUSES, Item
from align.construction.run import Done

SCHEMA = 1
Prices = Mapping[str, tuple[float, float]]
"""{role: US dollars per million input and output tokens}"""


def funnel(done: Sequence[Done], prices: Prices) -> dict[str, Any]:
    """The funnel of finished steps (docs/formats.md)."""
    steps = [_step(one, prices) for one in done]
    return {
        "schema": SCHEMA,
        "entered": steps[0]["entered"] if steps else 0,
        "left": steps[-1]["left"] if steps else 0,
        "steps": steps,
    }


def _step(done: Done, prices: Prices) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for outcome in done.outcomes:
        counts.update(outcome.counts)
    return {
        "step": done.step,
        "entered": len(done.entered),
        "left": len(done.left),
        "statuses": {status: sum(one.status == status for one in done.outcomes) for status in STATUSES},
        "reasons": _nested((one.status, str(one.reason)) for one in done.outcomes if one.status != KEPT),
        "categories": _categories(done.entered, done.left),
        "counts": dict(sorted(counts.items())),
        "roles": _roles(done, prices),
        "file": done.file,
    }


def _nested(pairs: Any) -> dict[str, dict[str, int]]:
    """{status: {reason: number}}."""
    found: dict[str, dict[str, int]] = {}
    for (status, reason), n in sorted(Counter(pairs).items()):
        found.setdefault(status, {})[reason] = n
    return found


def _categories(entered: Sequence[Item], left: Sequence[Item]) -> dict[str, dict[str, int]]:
    before, after = (Counter(item.category or "none" for item in items) for items in (entered, left))
    return {name: {"entered": before[name], "left": after[name]} for name in sorted({*before, *after})}


def _roles(done: Done, prices: Prices) -> dict[str, dict[str, Any]]:
    """{role: calls, tokens, seconds, US dollars where prices are given}."""
    found: dict[str, dict[str, Any]] = {}
    for call in (call for outcome in done.outcomes for call in outcome.calls):
        of = found.setdefault(call["role"], {"calls": 0, "prompt_tokens": 0, "new_tokens": 0, "seconds": 0.0})
        of["calls"] += 1
        of["prompt_tokens"] += call.get("prompt_tokens") or 0
        of["new_tokens"] += call.get("new_tokens") or 0
        of["seconds"] = round(of["seconds"] + call["seconds"], 3)
    for role, of in found.items():
        if role in prices:
            price_in, price_out = prices[role]
            of["cost"] = round((of["prompt_tokens"] * price_in + of["new_tokens"] * price_out) / 1e6, 4)
    return found

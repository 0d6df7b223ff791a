"""Verdicts -> result of a benchmark: disjoint counts that sum to n, rate, interval, bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from align.answering.answer import unfinished_reason
from align.evaluation.items import Item, items_of
from align.evaluation.metrics import proportion_interval
from align.evaluation.selection import Selected
from align.evaluation.verdicts import AnyJudge, Verdict, bins, label_of

SCHEMA = 1
MAX_INVALID = 0.05
"""Above this share of invalid verdicts the rate is withheld: valid items may differ."""


def summarise(
    chosen: Selected,
    judge: AnyJudge,
    responses: Mapping[str, Mapping[str, Any]],
    verdicts: Mapping[str, Verdict],
    items: Sequence[Item],
    facts: Sequence[str] = (),
) -> dict[str, Any]:
    """The result of one judge on one benchmark; see docs/formats.md."""
    kind = chosen.benchmark.kind
    counts = dict.fromkeys(bins(judge, kind), 0) | Counter(item.label for item in items)
    n, invalid = len(items), counts["invalid"]
    valid = [item for item in items if item.label != "invalid"]
    good = sum(item.good for item in valid)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "set": chosen.name,
        "kind": kind,
        "n": n,
        "counts": counts,
        "rate": None,
        "low": None,
        "high": None,
        # The rate if all responses without a verdict are bad, and if all are good.
        "bounds": {"low": good / n, "high": (good + invalid) / n},
        "as_judged": None,
        "judge": judge.name,
        "judge_version": judge.version,
        "prompt_hash": judge.prompt_hash,
        "judge_settings": dict(judge.settings),
        "invalid_reasons": dict(Counter(v.reason for v in verdicts.values() if label_of(v) == "invalid")),
        "judge_tokens": {
            "prompt": sum(verdict.prompt_tokens or 0 for verdict in verdicts.values()),
            "new": sum(verdict.new_tokens or 0 for verdict in verdicts.values()),
        },
        "cost": cost_of(responses.values()),
        # Part of the incoherent ones; for twins it counts rows, not pairs.
        "unfinished": sum(verdict.unfinished for verdict in verdicts.values()),
        "unfinished_reasons": dict(
            Counter(unfinished_reason(record) for record in responses.values() if record.get("unfinished"))
        ),
        "thoughts": sum(bool(record.get("thought")) for record in responses.values()),
        "thoughts_cut": sum(bool(record.get("thought_cut")) for record in responses.values()),
        "cut_at_max_new_tokens": sum(record["finish_reason"] == "length" for record in responses.values()),
        "narrowed": chosen.narrowed,
        "facts": list(facts),
    }
    if invalid <= MAX_INVALID * n:
        low, high = proportion_interval([item.good for item in valid], [item.cluster for item in valid])
        result |= {"rate": good / len(valid), "low": low, "high": high, "as_judged": _as_judged(chosen, verdicts)}
    return result


def cost_of(responses: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Calls and tokens of the model for the responses to one benchmark; see docs/formats.md.

    A response without a defence is one call. Rows that the model could not be asked have no cost.
    `counted` is the number of responses whose new tokens are known, of which `new_tokens` is the sum.
    """
    cost = dict.fromkeys(("responses", "calls", "counted", "new_tokens", "judged", "acted", "unclear"), 0)
    for record in responses:
        of = record.get("defence")
        if of is None:
            if record["finish_reason"] == "unusable":
                continue
            of = {"calls": 1, "new_tokens": record.get("new_tokens"), "judged": 0, "acted": False, "unclear": 0}
        cost["responses"] += 1
        for key in ("calls", "judged", "acted", "unclear"):
            cost[key] += int(of[key])
        if of["new_tokens"] is not None:
            cost["counted"] += 1
            cost["new_tokens"] += of["new_tokens"]
    return cost


def _as_judged(chosen: Selected, verdicts: Mapping[str, Verdict]) -> dict[str, int] | None:
    """{good, n} if verdicts on incoherent responses count, as in published protocols.

    An unfinished response has no verdict and is not good.
    """
    labels = {
        row_id: label_of(verdict) if verdict.unfinished else verdict.verdict for row_id, verdict in verdicts.items()
    }
    items = items_of(chosen.benchmark.kind, chosen.items, labels, dict.fromkeys(labels, ""))
    valid = [item for item in items if item.label != "invalid"]
    return {"good": sum(item.good for item in valid), "n": len(valid)} if valid else None

"""A review in a sentence, for the terminal and the data card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.report.names import percent

NOT_REVIEWED = "No person has reviewed these items: models decided alone (review=export writes a page for reviewers)."
NAMES = {"cohen": "Cohen's kappa", "fleiss": "Fleiss' kappa"}


def summary(found: Mapping[str, Any]) -> str:
    """How many people reviewed how many items, what they dropped, and how far they agree."""
    text = (
        f"{found['people']} {'person' if found['people'] == 1 else 'people'} reviewed {found['reviewed']:,} items and "
        f"dropped {found['dropped']:,}; {found['not_reviewed']:,} items were not reviewed."
    )
    if found["outdated"]:
        text += f" {found['outdated']:,} stored decisions are about other texts or images and do not count."
    agreed = found["agreement"]
    if agreed is None:
        return f"{text} No item was reviewed by two people, so their agreement is unknown."
    same, kappa = agreed["all_agree"], agreed["kappa"]
    text += (
        f" On {agreed['items']:,} items with several decisions, all agree in {percent(same['value'])}% "
        f"({percent(same['low'])}-{percent(same['high'])})"
    )
    if kappa["value"] is None:
        return f"{text}; kappa is undefined, because one label is on every item."
    spread = "" if kappa["low"] is None else f" ({kappa['low']:.2f} to {kappa['high']:.2f})"
    return (
        f"{text}; {NAMES[kappa['name']]} {kappa['value']:.2f}{spread}. Disagreements, in construction.json: "
        f"{len(found['disagreements'])}."
    )

"""Agreement between reviewers: Cohen's kappa for two, Fleiss' kappa for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from align.evaluation.metrics import cluster_interval, cohen_kappa, kappa_interval, proportion_interval

Labels = Mapping[str, Mapping[str, str]]
"""{item: {person: label}}"""


def agreement(labels: Labels, categories: Sequence[str]) -> dict[str, Any] | None:
    """Kappa with a 95% interval over items, and the share of items on which all agree; None without
    two labels of an item.

    Cohen's kappa if exactly two people labelled the same items. Otherwise Fleiss' kappa over the
    items with at least two labels.
    """
    several = {item: of for item, of in labels.items() if len(of) > 1}
    if not several:
        return None
    people = sorted({person for of in several.values() for person in of})
    same = [len(set(of.values())) == 1 for of in several.values()]
    low, high = proportion_interval(same)
    found: dict[str, Any] = {"items": len(several), "people": len(people)}
    found["all_agree"] = {"value": sum(same) / len(same), "low": low, "high": high}
    items = list(several)
    if len(people) == 2:
        first, second = ([several[item][person] for item in items] for person in people)
        low_kappa, high_kappa = kappa_interval(first, second, items)
        kappa, name = cohen_kappa(first, second), "cohen"
    else:
        counts = [[Counter(of.values())[label] for label in categories] for of in several.values()]
        kappa, name = fleiss_kappa(counts), "fleiss"
        low_kappa, high_kappa = cluster_interval(counts, items, fleiss_kappa)
        if low_kappa == high_kappa:  # all agree on every item: a bootstrap has no width
            low_kappa = None if low_kappa is None else _lower_end(counts, low)
    return found | {"kappa": {"name": name, "value": kappa, "low": low_kappa, "high": high_kappa}}


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Fleiss' kappa (Fleiss 1971, Psychological Bulletin 76:378) of counts `(item, category)`; None
    if undefined.

    Items may have different numbers of raters (at least two): the agreement of an item is the share
    of its pairs of raters with the same label, and an item counts once.
    """
    observed = sum(_pairs(of) for of in counts) / len(counts)
    expected = _by_chance(counts)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def _pairs(of_item: Sequence[int]) -> float:
    """Share of pairs of raters with the same label."""
    n = sum(of_item)
    return sum(k * (k - 1) for k in of_item) / (n * (n - 1))


def _by_chance(counts: Sequence[Sequence[int]]) -> float:
    total = sum(map(sum, counts))
    return sum((sum(of) / total) ** 2 for of in zip(*counts, strict=True))


def _lower_end(counts: Sequence[Sequence[int]], agreeing: float) -> float | None:
    """Kappa of the lower end of the interval of agreement, with the labels' frequencies fixed."""
    expected = _by_chance(counts)
    return None if expected == 1 else (agreeing - expected) / (1 - expected)

"""Shares and agreement, with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from scipy.special import ndtri

Value = TypeVar("Value")
CONFIDENCE = 0.95
RESAMPLES = 2000
FEW_CLUSTERS = 20


def wilson(good: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95%. Raises ValueError for n = 0."""
    if n <= 0:
        raise ValueError(f"an interval of a share of {n} items")
    z, share = float(ndtri((1 + CONFIDENCE) / 2)), good / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def proportion_interval(good: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """95% interval of a share: Wilson's, or a bootstrap over clusters where items of one cluster recur.

    A bootstrap says too little of few clusters, and where every item agrees nothing: then Wilson's with as many items as clusters.
    """
    distinct = len(set(clusters)) if clusters is not None else len(good)
    if distinct == len(good):
        return wilson(sum(good), len(good))
    if distinct < FEW_CLUSTERS or len(set(good)) == 1:
        return wilson(sum(good) / len(good) * distinct, distinct)
    values = np.asarray(good, dtype=float)
    _, index = np.unique([str(cluster) for cluster in clusters or ()], return_inverse=True)
    totals, sizes = np.bincount(index, weights=values), np.bincount(index)
    draws = np.random.default_rng(0).integers(distinct, size=(RESAMPLES, distinct))
    rates = totals[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement beyond chance of two raters of the same items (Cohen 1960); None where chance alone agrees on all."""
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    expected = _by_chance(first, second)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def kappa_interval(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable]
) -> tuple[float | None, float | None]:
    """95% interval of Cohen's kappa, by a bootstrap over clusters; (None, None) where that says nothing.

    Where the raters agree on every item each draw gives 1, and the bootstrap has no width. Then the lower end is the kappa of the lower
    end of Wilson's interval of the agreement, with the raters' own shares of labels: kappa grows with the agreement where these are
    held. For two labels that are equally frequent that is the goodness-of-fit interval of Donner and Eliasziw (1992, Statistics in
    Medicine 11:1511); for others it is wider.
    """
    if any(a != b for a, b in zip(first, second, strict=True)):
        pairs = list(zip(first, second, strict=True))
        return cluster_interval(pairs, clusters, lambda some: cohen_kappa(*zip(*some, strict=True)))
    expected = _by_chance(first, second)
    if expected == 1:
        return None, None
    low, _ = proportion_interval([True] * len(first), clusters)
    return max((low - expected) / (1 - expected), -1.0), 1.0


def _by_chance(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The agreement of two raters who give their labels as often as they do, to any item."""
    of_first, of_second = Counter(first), Counter(second)
    return sum(of_first[label] * of_second[label] for label in of_first) / len(first) ** 2


def cluster_interval(
    values: Sequence[Value], clusters: Sequence[Hashable], statistic: Callable[[Sequence[Value]], float | None]
) -> tuple[float | None, float | None]:
    """95% percentile interval of a statistic, by a bootstrap over clusters.

    (None, None) for one cluster, or where the statistic is undefined in most draws.
    """
    members: dict[Hashable, list[Value]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    groups = list(members.values())
    if len(groups) < 2:
        return None, None
    rng = np.random.default_rng(0)
    drawn = [
        statistic([value for i in rng.integers(len(groups), size=len(groups)) for value in groups[i]])
        for _ in range(RESAMPLES)
    ]
    found = [value for value in drawn if value is not None]
    if len(found) < RESAMPLES / 2:
        return None, None
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

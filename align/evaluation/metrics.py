"""Proportions and agreement, with intervals."""

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
        raise ValueError(f"no interval for a proportion of {n} items")
    z, share = float(ndtri((1 + CONFIDENCE) / 2)), good / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def proportion_interval(good: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """95% interval of a proportion: Wilson's, or a bootstrap over clusters if clusters repeat.

    A bootstrap is unreliable for few clusters and has no width if all items agree: then Wilson's,
    with n = the number of clusters.
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
    """Cohen's kappa of two raters of the same items (Cohen 1960).

    None if expected agreement is 1.
    """
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    expected = _by_chance(first, second)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def kappa_interval(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable]
) -> tuple[float | None, float | None]:
    """95% interval of Cohen's kappa, by a bootstrap over clusters; (None, None) if undefined.

    If the raters agree on every item, each draw gives 1 and the bootstrap has no width. Then the
    lower end is the kappa of the lower end of Wilson's interval of the agreement, with the raters'
    label frequencies fixed (kappa increases with agreement when these are fixed). For two equally
    frequent labels this is the goodness-of-fit interval of Donner and Eliasziw (1992, Statistics in
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
    """Expected agreement of two raters with the same label frequencies and random items."""
    of_first, of_second = Counter(first), Counter(second)
    return sum(of_first[label] * of_second[label] for label in of_first) / len(first) ** 2


def cluster_interval(
    values: Sequence[Value], clusters: Sequence[Hashable], statistic: Callable[[Sequence[Value]], float | None]
) -> tuple[float | None, float | None]:
    """95% percentile interval of a statistic, by a bootstrap over clusters.

    (None, None) for one cluster, or if the statistic is undefined in most draws.
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

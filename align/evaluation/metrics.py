"""A share with its interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLES = 2000


def wilson(good: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95%. Raises ValueError for n = 0."""
    interval = binomtest(good, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def proportion_interval(good: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """95% interval of a share: Wilson's, or a bootstrap over clusters where items of one cluster recur.

    Where every item agrees a bootstrap has no spread; then Wilson's with as many items as clusters.
    """
    distinct = len(set(clusters)) if clusters is not None else len(good)
    if distinct == len(good):
        return wilson(sum(good), len(good))
    if len(set(good)) == 1:
        return wilson(distinct if good[0] else 0, distinct)
    values = np.asarray(good, dtype=float)
    _, index = np.unique([str(cluster) for cluster in clusters or ()], return_inverse=True)
    totals, sizes = np.bincount(index, weights=values), np.bincount(index)
    draws = np.random.default_rng(0).integers(distinct, size=(RESAMPLES, distinct))
    rates = totals[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

"""Numbers with their intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

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


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> dict[str, Any]:
    """A's rate minus b's on the same items: {n, difference, low, high, p_value}.

    Interval: Newcombe's score method for paired proportions (Statistics in Medicine 17, 1998, method 10), which stays
    sensible where both agree on everything. p: exact McNemar test. Raises ValueError where the lengths differ.
    """
    pairs = list(zip(a, b, strict=True))
    n = len(pairs)
    both, only_a, only_b = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    neither = n - both - only_a - only_b
    rate_a, rate_b = (both + only_a) / n, (both + only_b) / n
    (low_a, high_a), (low_b, high_b) = wilson(both + only_a, n), wilson(both + only_b, n)
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    numerator = float(both * neither - only_a * only_b)
    # Newcombe's correction of the correlation for continuity, where it is positive.
    numerator = max(numerator - n / 2, 0) if numerator > 0 else numerator
    phi = numerator / product**0.5 if product else 0.0
    below, above = rate_a - low_a, high_b - rate_b
    low_spread = (below**2 - 2 * phi * below * above + above**2) ** 0.5
    below, above = rate_b - low_b, high_a - rate_a
    high_spread = (below**2 - 2 * phi * below * above + above**2) ** 0.5
    discordant = only_a + only_b
    return {
        "n": n,
        "difference": rate_a - rate_b,
        "low": rate_a - rate_b - low_spread,
        "high": rate_a - rate_b + high_spread,
        "p_value": float(binomtest(only_a, discordant).pvalue) if discordant else 1.0,
    }

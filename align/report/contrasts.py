"""Differences over items and seeds, with their intervals.

Items and seeds are crossed samples: other images or other seeds would give other numbers, and three
seeds are a small sample of seeds. Items with the same image are not independent; they form one
cluster.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit

from align.evaluation.metrics import CONFIDENCE

DIFFERENCES = (1.0, -1.0)
RATES = (1.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Observations:
    """Observations on one benchmark: one value for each item under each seed."""

    values: Sequence[float] | np.ndarray
    clusters: Sequence[Hashable] | np.ndarray
    seeds: Sequence[Hashable] | np.ndarray
    weight: float = 1.0
    """Weight of the benchmark's mean in the contrast."""


def contrast(sets: Sequence[Observations], extremes: Sequence[float]) -> dict[str, float]:
    """Weighted sum of the benchmarks' means -> {estimate, low, high, p_value}.

    Interval: 95%; p value: two-sided against 0. The variance is for crossed random effects,
    V = V_cluster + V_seed - V_residual (two-way clustering: Cameron, Gelbach and Miller 2011), with
    Student's t at Satterthwaite's degrees of freedom. With one seed only the clusters are a sample,
    and the interval holds for that seed alone.

    `extremes` are values of added clusters that every benchmark gets for the interval, so that it
    keeps a width where all items agree: +1 and -1 for differences (Bonett and Price 2012), two
    successes and two failures for rates (Agresti and Coull 1998).
    """
    sizes = [len(one.values) for one in sets]
    rows, seeds = _numbered([one.seeds for one in sets])
    columns, clusters = _numbered([one.clusters for one in sets])  # two benchmarks may have the same image
    means, both, start = [], np.zeros((seeds, clusters + len(extremes) * len(sets))), 0
    for i, one in enumerate(sets):
        at = slice(start, start + sizes[i])
        mean, of_clusters, made_up = _influences(one, rows[at], columns[at], (seeds, clusters), extremes)
        means.append(mean)
        both[:, :clusters] += of_clusters
        both[:, clusters + i * len(extremes) : clusters + (i + 1) * len(extremes)] = made_up
        start += sizes[i]
    variance, freedom = _crossed(both)
    centre = float(sum(one.weight * mean for one, mean in zip(sets, means, strict=True)))
    error = variance**0.5
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    reach = [sorted((one.weight * min(extremes), one.weight * max(extremes))) for one in sets]
    return {
        "estimate": float(sum(one.weight * np.sum(one.values) / size for one, size in zip(sets, sizes, strict=True))),
        "low": max(centre - half, sum(low for low, _ in reach)),
        "high": min(centre + half, sum(high for _, high in reach)),
        "p_value": float(2 * stdtr(freedom, -abs(centre) / error)),
    }


def mcnemar(differences: Sequence[float] | np.ndarray) -> float:
    """P value of the exact McNemar test from paired differences of -1, 0 and 1."""
    values = np.asarray(differences)
    for_a, for_b = int((values > 0).sum()), int((values < 0).sum())
    return min(1.0, 2 * float(bdtr(min(for_a, for_b), for_a + for_b, 0.5)))


def _influences(
    one: Observations, row: np.ndarray, column: np.ndarray, shape: tuple[int, int], extremes: Sequence[float]
) -> tuple[float, np.ndarray, np.ndarray]:
    """-> (mean, influences on the contrast (seeds, clusters), the same (seeds, added clusters)).

    `row` and `column` are the numbers of each item's seed and cluster. A cluster that is not in
    this benchmark adds 0.
    """
    at = row * shape[1] + column
    counts = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    sums = np.bincount(at, weights=np.asarray(one.values, dtype=float), minlength=counts.size).reshape(shape)
    size = len(one.values) / (shape[0] * np.count_nonzero(counts.sum(0)))
    made_up = np.full((shape[0], len(extremes)), size)
    n = counts.sum() + made_up.sum()
    mean = (sums.sum() + (made_up * extremes).sum()) / n
    of_clusters = one.weight * (sums - counts * mean) / n
    return float(mean), of_clusters, one.weight * made_up * (np.asarray(extremes) - mean) / n


SMALL = 1 << 20
"""Integers below this bound are renumbered without sorting."""


def _numbered(names: Sequence[Sequence[Hashable] | np.ndarray]) -> tuple[np.ndarray, int]:
    """-> (a number for each name, equal for equal names; how many distinct names)."""
    every = np.asarray(names[0]) if len(names) == 1 else np.concatenate([np.asarray(of) for of in names])
    if every.dtype.kind == "i" and len(every) and every.min() >= 0 and (most := every.max()) < SMALL:
        there = np.zeros(most + 1, dtype=int)
        there[every] = 1
        numbers = there.cumsum()
        return numbers[every] - 1, int(numbers[-1])
    distinct, numbers = np.unique(every, return_inverse=True)
    return numbers, len(distinct)


def _crossed(influence: np.ndarray) -> tuple[float, float]:
    """-> (variance, degrees of freedom) of the sum of a table (seeds, clusters), both samples."""
    seeds, clusters = influence.shape
    of_clusters, of_seeds, every = influence.sum(0), influence.sum(1), influence.ravel()
    by_cluster = clusters / (clusters - 1) * float(of_clusters @ of_clusters)
    if seeds == 1:
        return by_cluster, clusters - 1
    by_seed = seeds / (seeds - 1) * float(of_seeds @ of_seeds)
    # Sum of squares of the residuals, after the means of clusters and of seeds.
    squares = every @ every - of_clusters @ of_clusters / seeds - of_seeds @ of_seeds / clusters
    residual = max(float(squares + of_seeds.sum() ** 2 / (seeds * clusters)), 0.0)
    both = seeds / (seeds - 1) * clusters / (clusters - 1) * residual
    variance = max(by_cluster + by_seed - both, FLOOR * by_cluster)
    spread = by_cluster**2 / (clusters - 1) + by_seed**2 / (seeds - 1) + both**2 / ((seeds - 1) * (clusters - 1))
    return variance, max(variance**2 / spread, 1.0)


FLOOR = 0.25
"""Least variance as a share of V_cluster.

V_seed and V_residual are estimates with chance errors.
"""

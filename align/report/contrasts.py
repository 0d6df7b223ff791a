"""Differences over items and seeds, with their intervals.

Items and seeds are both samples, crossed: other pictures or another seed would have given other numbers, and three seeds say
little about how much seeds differ. Items that show one picture are not independent and count together, as one cluster.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from align.evaluation.metrics import CONFIDENCE

DIFFERENCES = (1.0, -1.0)
RATES = (1.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Observations:
    """What was seen on one evaluation set: one value for each item under each seed."""

    values: Sequence[float]
    clusters: Sequence[Hashable]
    seeds: Sequence[Hashable]
    weight: float = 1.0
    """With which the set's mean enters the contrast."""


def contrast(sets: Sequence[Observations], extremes: Sequence[float]) -> dict[str, float]:
    """The weighted sum of the sets' means -> {estimate, low, high, p_value}; 95%, two-sided against 0.

    The variance is that of crossed random effects, V = V_cluster + V_seed - V_residual (two-way clustering: Cameron, Gelbach and
    Miller 2011), with Student's t at Satterthwaite's degrees of freedom. With one seed only the clusters are a sample, and the
    interval is about that seed alone.

    `extremes` are the values of made-up clusters that every set gets for the interval, so that it keeps a width where all items
    agree: +1 and -1 for differences (Bonett and Price 2012), two successes and two failures for rates (Agresti and Coull 1998).
    """
    seeds = list(dict.fromkeys(seed for one in sets for seed in one.seeds))
    means, tables = zip(*(_influences(one, seeds, extremes) for one in sets), strict=True)
    columns: dict[Hashable, np.ndarray] = {}
    for table in tables:
        for cluster, influence in table.items():
            columns[cluster] = columns.get(cluster, 0.0) + influence  # two sets may show the same picture
    variance, freedom = _crossed(np.column_stack(list(columns.values())))
    centre = float(sum(one.weight * mean for one, mean in zip(sets, means, strict=True)))
    error = variance**0.5
    half = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    reach = [sorted((one.weight * min(extremes), one.weight * max(extremes))) for one in sets]
    return {
        "estimate": float(sum(one.weight * np.mean(one.values) for one in sets)),
        "low": max(centre - half, sum(low for low, _ in reach)),
        "high": min(centre + half, sum(high for _, high in reach)),
        "p_value": float(2 * student.sf(abs(centre) / error, freedom)),
    }


def mcnemar(differences: Sequence[float]) -> float:
    """P of the exact McNemar test from paired differences of -1, 0 and 1: a coin for the pairs that differ."""
    for_a, for_b = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return float(binomtest(for_a, for_a + for_b).pvalue) if for_a + for_b else 1.0


def _influences(
    one: Observations, seeds: Sequence[Hashable], extremes: Sequence[float]
) -> tuple[float, dict[Hashable, Any]]:
    """(mean, {cluster: what it adds to the contrast's error under each seed}), the made-up clusters included."""
    clusters = list(dict.fromkeys(one.clusters))
    column = {cluster: i for i, cluster in enumerate(clusters)}
    row = {seed: i for i, seed in enumerate(seeds)}
    sums, counts = np.zeros((2, len(seeds), len(clusters) + len(extremes)))
    at = [row[seed] for seed in one.seeds], [column[cluster] for cluster in one.clusters]
    np.add.at(sums, at, one.values)
    np.add.at(counts, at, 1)
    size = len(one.values) / (len(seeds) * len(clusters))
    counts[:, len(clusters) :] = size
    sums[:, len(clusters) :] = size * np.asarray(extremes)
    mean = sums.sum() / counts.sum()
    influence = one.weight * (sums - counts * mean) / counts.sum()
    keys = [*clusters, *((id(one), i) for i in range(len(extremes)))]
    return float(mean), dict(zip(keys, influence.T, strict=True))


def _crossed(influence: np.ndarray) -> tuple[float, float]:
    """(variance, degrees of freedom) of the sum of a table (seeds, clusters) of which both sides are samples."""
    seeds, clusters = influence.shape
    by_cluster = clusters / (clusters - 1) * float((influence.sum(0) ** 2).sum())
    if seeds == 1:
        return by_cluster, clusters - 1
    by_seed = seeds / (seeds - 1) * float((influence.sum(1) ** 2).sum())
    residual = influence - influence.mean(0) - influence.mean(1, keepdims=True) + influence.mean()
    both = seeds / (seeds - 1) * clusters / (clusters - 1) * float((residual**2).sum())
    variance = max(by_cluster + by_seed - both, FLOOR * by_cluster)
    spread = by_cluster**2 / (clusters - 1) + by_seed**2 / (seeds - 1) + both**2 / ((seeds - 1) * (clusters - 1))
    return variance, max(variance**2 / spread, 1.0)


FLOOR = 0.25
"""Of the clusters' part: below it V_seed came out small, or V_residual large, by chance."""

"""Intervals against worked numbers and by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from align.evaluation.metrics import proportion_interval, wilson


@pytest.mark.parametrize(
    ("good", "n", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: the score interval.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(good, n, low, high):
    assert wilson(good, n) == pytest.approx((low, high), abs=5e-5)


def test_the_cluster_bootstrap_is_scipys():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 4, size=120)
    clusters = np.repeat(np.arange(120), sizes)
    good = rng.random(len(clusters)) < np.repeat(rng.beta(3, 2, size=120), sizes)
    totals = np.bincount(clusters, weights=good)

    def rate(total, size, axis=-1):
        return total.sum(axis=axis) / size.sum(axis=axis)

    wanted = bootstrap((totals, sizes), rate, paired=True, method="percentile", n_resamples=9999, random_state=1)
    found = proportion_interval(good.tolist(), clusters.tolist())
    assert found == pytest.approx(tuple(wanted.confidence_interval), abs=0.006)


def test_items_that_recur_widen_the_interval():
    good = [True, True, True, False, False, False] * 10
    clusters = [i // 3 for i in range(60)]  # three rows of each image agree
    alone, together = proportion_interval(good), proportion_interval(good, clusters)
    assert together[1] - together[0] > 1.4 * (alone[1] - alone[0])
    assert proportion_interval(good, list(range(60))) == alone


def test_where_all_items_agree_clusters_still_count_as_items():
    assert proportion_interval([True] * 60, [i // 3 for i in range(60)]) == wilson(20, 20)


def test_the_cluster_bootstrap_covers_as_it_says():
    rng = np.random.default_rng(1)
    hits, trials = 0, 200
    for _ in range(trials):
        image = rng.beta(3, 2, size=80)  # images differ; three queries each share theirs; the true rate is 0.6
        good = (rng.random((80, 3)) < image[:, None]).ravel().tolist()
        low, high = proportion_interval(good, np.repeat(np.arange(80), 3).tolist())
        hits += low <= 0.6 <= high
    assert 0.90 <= hits / trials <= 0.99


def test_few_images_leave_a_wide_interval():
    """Ten queries of one image, or two images of which each has a good and a bad one, tell next to
    nothing of others.
    """
    assert proportion_interval([True, False] * 5, ["one"] * 10) == wilson(0.5, 1)
    low, high = proportion_interval([True, False, True, False], ["a", "a", "b", "b"])
    assert (low, high) == wilson(1, 2)
    assert high - low > 0.7


def test_wilson_is_scipys():
    for good, n in ((0, 7), (3, 7), (7, 7), (81, 263)):
        interval = binomtest(good, n).proportion_ci(0.95, method="wilson")
        assert wilson(good, n) == pytest.approx((interval.low, interval.high), abs=1e-12)

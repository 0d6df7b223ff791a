"""Intervals against worked numbers and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.evaluation.metrics import paired_difference, proportion_interval, wilson


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


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:2635), table II, method 10; table = both, only a, only b, neither.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
    ],
)
def test_the_paired_difference_lies_in_newcombes_interval(table, low, high):
    both, only_a, only_b, neither = table
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    result = paired_difference(a, b)
    assert result["difference"] == pytest.approx((only_a - only_b) / sum(table))
    assert (result["low"], result["high"]) == pytest.approx((low, high), abs=5e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_arms_turns_the_difference_round(pairs):
    a, b = (list(side) for side in zip(*pairs, strict=True))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth["low"] <= forth["difference"] <= forth["high"]
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    assert back["p_value"] == pytest.approx(forth["p_value"])


def test_mcnemar_is_the_exact_binomial_of_the_discordant_pairs():
    result = paired_difference([True] * 9 + [False], [False] * 9 + [True])
    assert result["p_value"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert paired_difference([True, False], [True, False])["p_value"] == 1.0


def test_items_that_recur_widen_the_interval():
    good = [True, True, True, False, False, False] * 10
    clusters = [i // 3 for i in range(60)]  # three rows of each picture agree
    alone, together = proportion_interval(good), proportion_interval(good, clusters)
    assert together[1] - together[0] > 1.4 * (alone[1] - alone[0])
    assert proportion_interval(good, list(range(60))) == alone


def test_where_all_items_agree_clusters_still_count_as_items():
    assert proportion_interval([True] * 60, [i // 3 for i in range(60)]) == wilson(20, 20)


def test_the_cluster_bootstrap_covers_as_it_says():
    rng = np.random.default_rng(1)
    hits, trials = 0, 200
    for _ in range(trials):
        picture = rng.beta(3, 2, size=80)  # pictures differ; three queries each share theirs; the true rate is 0.6
        good = (rng.random((80, 3)) < picture[:, None]).ravel().tolist()
        low, high = proportion_interval(good, np.repeat(np.arange(80), 3).tolist())
        hits += low <= 0.6 <= high
    assert 0.90 <= hits / trials <= 0.99

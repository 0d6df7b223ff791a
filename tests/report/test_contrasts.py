"""Differences over items and seeds: against numbers worked by hand, and by simulation with known
differences planted.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.report.contrasts import DIFFERENCES, RATES, Observations, contrast, mcnemar


def crossed(table, weight=1.0, name="image"):
    """Observations from a table (seeds, items)."""
    seeds, items = np.shape(table)
    return Observations(
        np.ravel(table).tolist(),
        [f"{name}{i}" for _ in range(seeds) for i in range(items)],
        [seed for seed in range(seeds) for _ in range(items)],
        weight,
    )


def test_one_seed_is_bonett_and_prices_interval_with_students_t():
    # 100 items: 20 good in a alone, 5 in b alone. With one item more of each: 21 and 6 of 102, so
    # the mean is 15/102 = .1470588, the variance of an item 27/102 - .1470588^2 = .2430796, its
    # unbiased form 102/101 of that, the error sqrt(.2454864/102) = .0490585; t at 101 degrees of
    # freedom is 1.983731, half the width .0973188.
    found = contrast([crossed([[1.0] * 20 + [-1.0] * 5 + [0.0] * 75])], DIFFERENCES)
    assert found["estimate"] == pytest.approx(0.15)
    assert (found["low"], found["high"]) == pytest.approx((0.0497400, 0.2443776), abs=1e-6)


def test_where_all_seeds_agree_on_everything_only_the_items_are_counted():
    # 198 items and two made-up ones, each under three seeds: mean 198/200 = .99, the variance of an
    # item (199 + 1)/200 - .99^2 = .0199, times 200/199 = .02, the error sqrt(.02/200) = .01. No
    # seed differs from another: V is the items' part.
    found = contrast([crossed(np.ones((3, 198)))], DIFFERENCES)
    assert found["estimate"] == 1.0
    assert found["high"] == 1.0  # no difference is larger
    assert found["low"] == pytest.approx(0.99 - 1.971957 * 0.01, abs=1e-6)


def test_seeds_that_differ_widen_the_interval_by_students_t_of_few_degrees_of_freedom():
    alike = np.tile([1.0] * 50 + [0.0] * 50, (3, 1))
    apart = np.stack([np.repeat([1.0, 0.0], [good, 100 - good]) for good in (20, 50, 80)])
    widths = [found["high"] - found["low"] for found in (contrast([crossed(t)], RATES) for t in (alike, apart))]
    # Three seeds at .2, .5, .8: their mean's error is .3/sqrt(3) = .173, t at 2 degrees of freedom 4.30.
    assert widths[1] > 3 * widths[0]


def test_rows_of_one_image_count_together():
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0] * 20
    alone = contrast([Observations(values, list(range(120)), [0] * 120)], RATES)
    together = contrast([Observations(values, [i // 3 for i in range(120)], [0] * 120)], RATES)
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_sets_that_show_the_same_images_are_compared_image_by_image():
    gain = np.array([[1.0, 0.0] * 50])  # the same on both sets, image by image: their difference is sure
    same = contrast([crossed(gain), crossed(gain, weight=-1.0)], DIFFERENCES)
    other = contrast([crossed(gain), crossed(gain, weight=-1.0, name="other")], DIFFERENCES)
    assert same["estimate"] == other["estimate"] == 0
    assert same["high"] - same["low"] < 0.5 * (other["high"] - other["low"])


def test_mcnemar_is_the_exact_binomial_of_the_pairs_that_differ():
    assert mcnemar([1.0] * 9 + [-1.0] + [0.0] * 30) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar([0.0, 0.0]) == 1.0


@given(
    st.integers(1, 4).flatmap(
        lambda seeds: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=seeds, max_size=seeds), min_size=1, max_size=30
        )
    )
)
def test_swapping_the_arms_turns_the_difference_round(items):
    table = np.array(items).T
    forth, back = contrast([crossed(table)], DIFFERENCES), contrast([crossed(-table)], DIFFERENCES)
    assert -1 <= forth["low"] <= forth["high"] <= 1
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    assert back["p_value"] == pytest.approx(forth["p_value"])


# Verdicts of two arms on images of one or more rows: logit P(good) = arm + image + image in this
# arm + seed in this arm, with the spreads as given. The difference of the rates over all images and
# seeds that there might be is worked out by 2 million draws.
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("arms", "image", "seed", "seeds", "rows"),
    [
        ((1, -1), 1.5, 0, 1, 1),
        ((4, -4), 1, 0, 1, 1),
        ((1, -1), 1.5, 0, 1, 3),
        ((0, 0), 0, 0, 3, 1),
        ((1, -1), 1.5, 0.15, 3, 1),
        ((1, -1), 1.5, 0.3, 3, 1),
        ((1, -1), 1, 0.8, 3, 1),
        ((4, -4), 1, 0.5, 3, 1),
        ((1, -1), 1.5, 0.15, 3, 3),
        ((1, -1), 1.5, 0.3, 5, 1),
    ],
)
def test_intervals_hold_the_planted_difference_and_interaction_as_often_as_they_say(arms, image, seed, seeds, rows):
    rng, trials, images = np.random.default_rng(7), 1000, 200 // rows

    def draw(arms, name):
        shared = rng.normal(0, image, images)
        good = []
        for arm in arms:
            logit = arm + shared + rng.normal(0, image / 2, images) + rng.normal(0, seed, (seeds, 1))
            good.append(rng.random((rows, seeds, images)) < 1 / (1 + np.exp(-logit)))
        parts = [crossed(one.astype(float) - other, name=name) for one, other in zip(*good, strict=True)]
        return [[x for part in parts for x in getattr(part, key)] for key in ("values", "clusters", "seeds")]

    def truth(arms):
        shared = rng.normal(0, image, 2_000_000)
        spread = (image**2 / 4 + seed**2) ** 0.5
        rates = [np.mean(1 / (1 + np.exp(-(arm + shared + rng.normal(0, spread, len(shared)))))) for arm in arms]
        return rates[0] - rates[1]

    leaky = (0.5, 0)
    difference, interaction = truth(arms), truth(arms) - truth(leaky)
    held = np.zeros(2)
    for _ in range(trials):
        free, other = Observations(*draw(arms, "free")), Observations(*draw(leaky, "leaky"), weight=-1.0)
        found = contrast([free], DIFFERENCES)
        held[0] += found["low"] <= difference <= found["high"]
        found = contrast([free, other], DIFFERENCES)
        held[1] += found["low"] <= interaction <= found["high"]
    coverage = held / trials
    print(f"arms {arms}, images {image}, seed {seed}, {seeds} seeds, {rows} rows an image: {coverage}")
    error = 3 * (0.95 * 0.05 / trials) ** 0.5  # of the simulation itself
    assert (coverage > 0.93 - error).all()
    assert (coverage < 0.97 + error).all()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("seed", "too_wide"), [(0, True), (0.8, False)])
def test_a_percentile_bootstrap_over_images_and_seeds_would_not_do(seed, too_wide):
    """With three seeds it is too wide where seeds do not differ, and far too short where they do;
    hence the crossed variance.
    """
    rng, trials, images, held = np.random.default_rng(3), 500, 200, 0
    draws = np.random.default_rng(4)
    for _ in range(trials):
        logit = [
            sign + rng.normal(0, 1, images) + rng.normal(0, seed, (3, 1)) for sign in (0, 0)
        ]  # the true difference is 0
        a, b = (rng.random((3, images)) < 1 / (1 + np.exp(-one)) for one in logit)
        table = a.astype(float) - b
        seeds = draws.multinomial(3, [1 / 3] * 3, size=1000)
        items = draws.multinomial(images, [1 / images] * images, size=1000)
        low, high = np.quantile(np.einsum("bs,si,bi->b", seeds, table, items) / table.size, [0.025, 0.975])
        held += low <= 0 <= high
    print(f"percentile bootstrap, seed {seed}: {held / trials}")
    assert held / trials > 0.97 if too_wide else held / trials < 0.9

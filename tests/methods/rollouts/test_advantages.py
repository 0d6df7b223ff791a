"""The formulas of learning from rewards, against numbers worked out by hand and trl's own functions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from align.methods.rollouts.advantages import (
    advantages_of,
    group_advantages,
    kl_rewards,
    leave_one_out,
    next_log_multiplier,
    policy_losses,
    safe_advantages,
    value_losses,
    whitened,
)

NAN = math.nan
numbers = st.floats(-5, 5, width=32)


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_each_token_pays_for_its_divergence_and_the_last_gets_the_score():
    close(kl_rewards(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]), 3.0, 0.1), [-0.05, 3.1])


def test_an_empty_response_is_its_end_of_turn_and_has_the_score():
    close(kl_rewards(torch.tensor([-2.0]), torch.tensor([-2.0]), 0.5, 0.1), [0.5])


def test_generalised_advantages():
    advantages, returns = advantages_of(
        torch.tensor([0.1, -0.2, 1.0]), torch.tensor([0.5, 0.4, 0.3]), gamma=0.9, lam=0.8
    )
    close(advantages, [0.08528, 0.174, 0.7])
    close(returns, [0.58528, 0.574, 1.0])


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_with_gamma_and_lambda_1_the_return_is_the_sum_of_the_later_rewards(tokens):
    rewards, values = torch.tensor(tokens).T
    advantages, returns = advantages_of(rewards, values, 1.0, 1.0)
    torch.testing.assert_close(returns, rewards.flip(0).cumsum(0).flip(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(advantages, returns - values, atol=1e-4, rtol=1e-4)


def test_the_policy_gains_nothing_beyond_the_clipped_ratio():
    ratios = torch.tensor([1.5, 0.5, 1.1, 1.5])
    losses, clipped = policy_losses(ratios.log(), torch.zeros(4), torch.tensor([2.0, -1.0, 1.0, -1.0]), 0.2)
    close(losses, [-2.4, 0.8, -1.1, 1.5])
    assert clipped.tolist() == [True, True, False, False]


def test_the_worse_of_a_value_and_its_clipped_value_counts():
    values, old, returns = torch.tensor([1.0, 0.6]), torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5])
    close(value_losses(values, old, returns, 0.2), [0.5, 0.045])


def test_whitening():
    close(whitened(torch.tensor([1.0, 2.0, 3.0])), [-1.2247449, 0.0, 1.2247449])
    close(whitened(torch.tensor([1.0, 2.0, 3.0]), keep_mean=True), [0.7752551, 2.0, 3.2247449])


def test_advantages_relative_to_the_other_responses_of_a_prompt():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    close(group_advantages(rewards, "group"), [[0.8658754, -0.8658754, -0.8658754, 0.8658754], [0.0] * 4])
    close(group_advantages(rewards, "none"), [[0.5, -0.5, -0.5, 0.5], [0.0] * 4])
    of_batch = 0.5 / (float(nanstd(rewards.flatten())) + 1e-4)
    close(group_advantages(rewards, "batch"), [[of_batch, -of_batch, -of_batch, of_batch], [0.0] * 4])
    close(leave_one_out(rewards), [[2 / 3, -2 / 3, -2 / 3, 2 / 3], [0.0] * 4])


def test_a_response_without_a_reward_has_no_advantage_and_changes_no_other():
    rewards = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 2.0], [NAN, NAN, NAN]])
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    close(group_advantages(rewards, "group"), [[half, 0.0, -half], [0.0] * 3, [0.0] * 3])
    close(leave_one_out(rewards), [[1.0, 0.0, -1.0], [0.0] * 3, [0.0] * 3])


@given(st.lists(st.lists(numbers | st.just(NAN), min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_deviation_is_trls(groups):
    rewards = torch.tensor(groups)
    deviation = torch.nan_to_num(nanstd(rewards, dim=1))[:, None]
    expected = torch.nan_to_num((rewards - torch.nanmean(rewards, 1, keepdim=True)) / (deviation + 1e-4))
    torch.testing.assert_close(group_advantages(rewards, "group"), expected, atol=1e-3, rtol=1e-3)


def test_reward_and_cost_share_the_advantage():
    close(safe_advantages(torch.tensor([2.0]), torch.tensor([1.0]), 0.5), [1.0])
    close(safe_advantages(torch.tensor([2.0]), torch.tensor([1.0]), 0.0), [2.0])


def test_the_multiplier_rises_while_the_cost_is_above_its_limit():
    assert next_log_multiplier(0.0, 2.0, 1.0, 0.1) == pytest.approx(0.1)
    assert next_log_multiplier(math.log(2), 0.5, 1.0, 0.1) == pytest.approx(math.log(2) - 0.1)

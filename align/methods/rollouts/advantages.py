"""Formulas of learning from rewards, as pure functions.

| | source |
|---|---|
| `kl_rewards` | Ziegler et al. 2019 (arXiv 1909.08593), eq. 2; SPA-VL's script |
| `advantages_of` | generalised advantage estimation, Schulman et al. 2016 (arXiv 1506.02438), eq. 16 |
| `policy_losses`, `value_losses` | PPO, Schulman et al. 2017 (arXiv 1707.06347), eq. 7, and its code for values |
| `group_advantages` | GRPO, Shao et al. 2024 (arXiv 2402.03300), section 4.1.2 |
| `leave_one_out` | RLOO, Ahmadian et al. 2024 (arXiv 2402.14740), eq. 8 |
| `safe_advantages`, `next_log_multiplier` | Safe RLHF, Dai et al. 2023 (arXiv 2310.12773), eq. 31 and 33 |
"""

from __future__ import annotations

import math

import torch

EPSILON = 1e-4
"""Added to a standard deviation that divides, as in trl's GRPO."""


def kl_rewards(log_probs: torch.Tensor, reference: torch.Tensor, score: float, kl_coef: float) -> torch.Tensor:
    """Rewards of the tokens of one response (tokens,): a penalty on each, the score on the last.

    r_t = -kl_coef * (log p(a_t) - log p_ref(a_t)) + [t = last] * score. `log_probs` and `reference`
    (tokens,).
    """
    rewards = -kl_coef * (log_probs - reference)
    rewards[-1] += score
    return rewards


def advantages_of(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Advantages, returns) of the tokens of one response, each (tokens,).

    delta_t = r_t + gamma * V_{t+1} - V_t with V = 0 after the last token,
    A_t = delta_t + gamma * lam * A_{t+1},  G_t = A_t + V_t. `rewards` and `values` (tokens,).
    """
    advantages, following = torch.zeros_like(rewards), rewards.new_zeros(())
    next_values = torch.cat([values[1:], values.new_zeros(1)])
    deltas = rewards + gamma * next_values - values
    for t in reversed(range(len(rewards))):
        following = deltas[t] + gamma * lam * following
        advantages[t] = following
    return advantages, advantages + values


def policy_losses(
    log_probs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Loss of each token, whether its ratio was clipped), of any one shape.

    max(-A * rho, -A * clip(rho, 1 - clip, 1 + clip)) with rho = exp(log p - log p_old).
    """
    ratio = torch.exp(log_probs - old)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, clipped), clipped > plain


def value_losses(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """The critic's loss on each token, of any one shape.

    0.5 * max((V - G)^2, (V_old + clip(V - V_old, -clip, clip) - G)^2)
    """
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def whitened(values: torch.Tensor, keep_mean: bool = False) -> torch.Tensor:
    """Values (n,) with mean 0, or their own, and variance 1 (biased, as in trl's last PPO: unbiased off)."""
    mean = values.mean()
    white = (values - mean) * torch.rsqrt(values.var(unbiased=False) + 1e-8)
    return white + mean if keep_mean else white


def group_advantages(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    """Advantages (prompts, responses) of rewards of this shape; NaN marks a response without a reward.

    A = (r - mean of its prompt) / (s + 1e-4); `scale`: s is the standard deviation of the `group`,
    of the whole `batch`, or there is no division (`none`). A response without a reward has
    advantage 0, and the others are compared with each other alone.
    """
    centred = rewards - torch.nanmean(rewards, 1, keepdim=True)
    if scale == "none":
        return torch.nan_to_num(centred)
    deviations = {"group": lambda: _deviation(rewards, 1), "batch": lambda: _deviation(rewards.flatten()[None], 1)}
    return torch.nan_to_num(centred / (deviations[scale]() + EPSILON))


def _deviation(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The standard deviation (unbiased) of what is not NaN; 0 for fewer than two values."""
    known = ~torch.isnan(values)
    count = known.sum(dim, keepdim=True)
    squares = torch.where(known, (values - torch.nanmean(values, dim, keepdim=True)) ** 2, 0.0)
    return torch.where(count > 1, (squares.sum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt(), 0.0)


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Advantages (prompts, responses): each reward minus the mean of its prompt's other responses.

    NaN marks a response without a reward, whose advantage is 0; so is that of an only response.
    """
    known = ~torch.isnan(rewards)
    count = known.sum(1, keepdim=True)
    total = torch.nan_to_num(rewards).sum(1, keepdim=True)
    others = (total - rewards) / (count - 1).clamp(min=1)
    return torch.where(known & (count > 1), rewards - others, 0.0)


def safe_advantages(reward: torch.Tensor, cost: torch.Tensor, multiplier: float) -> torch.Tensor:
    """Advantages of any one shape from those of reward and cost: (A_r - m * A_c) / (1 + m)."""
    return (reward - multiplier * cost) / (1 + multiplier)


def next_log_multiplier(log_multiplier: float, mean_cost: float, limit: float, rate: float) -> float:
    """The logarithm of Safe RLHF's multiplier after a step of gradient ascent on m * (mean cost - limit)."""
    return log_multiplier + rate * math.exp(log_multiplier) * (mean_cost - limit)

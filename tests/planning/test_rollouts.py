"""Plans of reward models, PPO and GRPO: passes, sampling, and several models on one base."""

import json
from functools import cache

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.planning.estimate import PEAKS, estimate
from align.planning.layers import HEAD, matrices
from align.planning.rollouts import BANDWIDTH
from align.planning.skeleton import skeleton
from align.settings import PlanSettings
from align.training.dry_run import show
from tests.support.full_size import write

BASE, ADAPTER, WIDTH = 7_063_427_072, 319_815_680, 4096
"""Parameters of LLaVA-1.5-7B and of its adapter (r 128), and its hidden size."""
DATA = tuple(f"data.{role}={{rows: {rows}, role: {role}}}" for role, rows in (("harmful", 2000), ("benign", 1000)))
OF_RUN = ("model=llava_7b", "suite=null", *DATA, "global_batch_size=128", "train.per_device_train_batch_size=4")
PPO, GRPO, REWARD = ((*OF_RUN, f"recipe=mm_{name}") for name in ("ppo", "grpo", "reward"))
PPO += ("lora.r=128",)
GRPO += ("rewards.preference={reward: model, recipe: mm_reward}",)
PROMPT, TOKENS = 60 + 576, 256


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("configs")))


@cache
def made(configs, *words, gpus=(1,), **assumed):
    return estimate(compose_run(words), PlanSettings(configs=configs, gpus=list(gpus), **assumed))


def test_all_models_are_adapters_on_one_base(configs):
    memory = made(configs, *PPO).launched[0].memory["ddp"]
    heads = 2 * 4 * WIDTH  # of the critic and of the reward model
    assert memory.weights == 2 * BASE + 3 * 4 * ADAPTER + heads
    assert (memory.gradients, memory.optimizer) == (2 * 4 * ADAPTER + 4 * WIDTH, 2 * (2 * 4 * ADAPTER + 4 * WIDTH))
    assert memory.reference == 0  # the base alone


@pytest.mark.slow
@pytest.mark.long
def test_a_critic_has_the_adapter_of_its_reward_model_and_states_like_the_policy(configs):
    memory = made(configs, *PPO, "lora.r=256").launched[0].memory["ddp"]
    assert (
        memory.weights == 2 * BASE + (2 + 1 + 1) * 4 * ADAPTER + 2 * 4 * WIDTH
    )  # the recipe of the reward model has 128
    assert memory.gradients == (2 + 1) * 4 * ADAPTER + 4 * WIDTH
    given = "rewards.preference={recipe: null, path: somewhere}"  # unknown: as large as the policy's
    assert made(configs, *PPO, "lora.r=256", given).launched[0].memory["ddp"].gradients == 4 * 4 * ADAPTER + 4 * WIDTH


def test_four_models_need_three_bases_more(configs):
    it = made(configs, *PPO)
    shared, separate = it.in_memory
    assert (it.rollouts.models, it.rollouts.reward_models) == (4, 1)
    assert separate - shared == 3 * 2 * BASE
    memory = it.launched[0].memory["ddp"]
    assert shared == memory.weights + memory.gradients + memory.optimizer


@pytest.mark.parametrize(
    ("recipe", "more", "models", "reward_models"),
    [
        ("mm_ppo", (), 4, 1),
        ("mm_ppo", ("train.kl_coef=0",), 3, 1),
        ("mm_ppo", ("cost={reward: model, recipe: mm_reward}",), 5, 2),
        ("mm_grpo", ("rewards.preference={reward: model, recipe: mm_reward}",), 3, 1),
        ("mm_grpo", ("rewards.preference={reward: model, recipe: mm_reward}", "train.beta=0"), 2, 1),
        ("mm_grpo", ("rewards.rule={reward: rule}", "train.beta=0"), 1, 0),
    ],
)
def test_models_are_those_that_the_run_computes(tiny, recipe, more, models, reward_models):
    words = [f"model={tiny('llava')}", "model.dtype=float32", "suite=null", *DATA, "global_batch_size=8"]
    it = estimate(compose_run([*words, f"recipe={recipe}", *more]), PlanSettings(gpus=[1]))
    assert (it.rollouts.models, it.rollouts.reward_models) == (models, reward_models)
    assert (it.step.reference is None) == any(word in ("train.beta=0", "train.kl_coef=0") for word in more)
    base = 4 * sum(of["all"] - of["trainable"] for of in it.parameters.values())
    assert it.in_memory[1] - it.in_memory[0] == (models - 1) * base


@pytest.mark.slow
@pytest.mark.long
def test_every_pass_is_counted(configs):
    """2 N a position forward, twice that backward and again for recomputed layers; all of one length."""
    it = made(configs, *PPO)
    one = 2 * 6.9e9 * 128 * (PROMPT + TOKENS)
    assert it.flops.forward == pytest.approx(one, rel=0.12)
    assert it.flops.reference == pytest.approx(one, rel=0.1)
    assert it.flops.scored == pytest.approx(3 * one, rel=0.12)  # policy, critic, reward model
    assert it.flops.critic == pytest.approx(3 * one, rel=0.12)
    grpo = made(configs, *GRPO, f"train.max_completion_length={TOKENS}")
    assert grpo.flops.scored == pytest.approx(2 * one, rel=0.12)
    assert grpo.flops.critic == 0
    again = made(configs, *PPO, "train.num_ppo_epochs=2").flops
    assert again.scored == pytest.approx(it.flops.scored / 2)  # a round is scored once, and trained on twice
    assert (again.forward, again.critic) == (it.flops.forward, it.flops.critic)


def test_sampling_is_a_pass_over_prompts_and_one_position_for_each_token(configs):
    it = made(configs, *PPO)
    found = matrices(skeleton(compose_run(PPO), True, configs), True)
    decoded = [matrix for matrix in found if matrix.tower in ("language_model", HEAD)]
    seen = sum(PROMPT + t for t in range(TOKENS))
    wanted = 2 * TOKENS * sum(m.weights for m in decoded) + 4 * seen * sum(m.attention for m in decoded)
    assert it.flops.decoding == pytest.approx(128 * wanted)
    assert it.flops.prefill == pytest.approx(it.flops.scored / 3 * PROMPT / (PROMPT + TOKENS), rel=0.1)


@pytest.mark.slow
@pytest.mark.long
def test_decoding_takes_the_time_to_read_weights_and_cache(configs):
    slow, fast = (made(configs, *PPO, gpus=(8,), decoding=share) for share in (0.25, 0.5))
    cache_of_a_token = 2 * 32 * 2 * WIDTH
    read = 2 * (BASE - 303_507_456 - 20_979_712 - 131_072_000 + ADAPTER) + 4 * cache_of_a_token * (PROMPT + TOKENS / 2)
    for gpu, bandwidth in BANDWIDTH.items():
        hours = [of.launched[0].hours[gpu] for of in (slow, fast)]
        # 16 responses on each GPU, 4 at once
        seconds = slow.steps * 4 * TOKENS * read / (bandwidth * 0.5)
        assert hours[0] - hours[1] == pytest.approx(seconds / 3600, rel=0.01)
        rest = slow.steps * (slow.flops.total - slow.flops.decoding) / (8 * PEAKS[gpu] * 0.35) / 3600
        assert hours[0] == pytest.approx(rest + 2 * (hours[0] - hours[1]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_the_cache_of_many_responses_at_once_is_the_peak(configs):
    few, many = (
        made(configs, *PPO, f"train.rollout_batch_size={size}").launched[0].memory["ddp"].activations
        for size in (1, 128)
    )
    assert many == 128 * 2 * 32 * 2 * WIDTH * (PROMPT + TOKENS)
    assert few < many


def test_a_reward_model_has_no_output_head_and_does_not_train_on_held_out_pairs(configs):
    it = made(configs, *REWARD)
    assert it.steps == 22  # 2,700 of 3,000 pairs in steps of 128, one epoch
    assert it.step.policy.supervised == 0
    assert list(made(configs, *REWARD, gpus=(8,)).launched[0].memory) == ["ddp", "zero2"]
    assert list(made(configs, *PPO, gpus=(8,)).launched[0].memory) == ["ddp", "zero2"]


@pytest.mark.parametrize("more", [(), ("train.generation_batch_size=16",), ("train.num_iterations=2",)])
def test_steps_are_those_of_the_run(tiny, tmp_path, capsys, more):
    data = [f"data.{role}={{source: miniature, subset: {subset}, rows: 22}}" for role, subset in SUBSETS.items()]
    words = [f"model={tiny('llava')}", "recipe=mm_grpo", *data, "global_batch_size=8", "train.num_generations=4"]
    words += ["rewards.rule={reward: rule}", f"output_dir={tmp_path}", "train.num_train_epochs=2.5"]
    words += ["train.max_completion_length=8"]
    composed = compose_run([*words, *more])
    show(composed)
    said = capsys.readouterr().out
    planned = estimate(composed, PlanSettings(gpus=[1]))
    assert f"Steps: {planned.steps:,}," in said or f"Steps: {planned.steps}," in said


SUBSETS = {"harmful": "image_harmful", "benign": "text_benign"}


@pytest.mark.slow
@pytest.mark.long
def test_what_is_printed(configs, capsys):
    assert main(["plan", *PPO, f"plan.configs={configs}", "plan.gpus=1"]) == 0
    said = capsys.readouterr().out
    assert "23.9 GiB with 4 models on one base; 63.3 GiB with a base and the same adapter for each" in said
    assert "A round: 128 responses of 256 tokens to prompts of 636 tokens, trained on in 1 step" in said
    assert "Decoding is assumed to be memory-bound" in said
    assert main(["plan", *GRPO, f"plan.configs={configs}", "plan.gpus=8", "plan.format=json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["rollouts"]["plan"]["samples"], run["rollouts"]["models"]) == (8, 3)


def test_a_prompt_that_the_run_would_reject_is_named(configs):
    with pytest.raises(UserError, match=r"a prompt of 636 tokens .* train.max_length=512"):
        made(configs, *PPO, "train.max_length=512")

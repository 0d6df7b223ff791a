"""The recipes with rewards on the miniature, with their shipped settings: minutes each."""

from __future__ import annotations

import json

import pytest

from align.config.compose import compose_run
from align.training.run import train
from tests.support.methods import aligned, trained_on_the_miniature

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_a_reward_model_prefers_the_chosen_response(family_name, tmp_path):
    for recipe in ("mm_reward", "t_reward"):
        words = [f"recipe={recipe}", f"model=mini_{family_name}", f"output_dir={tmp_path / recipe}"]
        run = train(compose_run([*words, "train.save_strategy=no"]))
        assert run.manifest()["held_out"]["accuracy"] >= 0.95


@pytest.mark.parametrize("recipe", ["mm_ppo", "mm_grpo"])
@pytest.mark.timeout(1800)
def test_the_image_decides_where_the_reward_sees_it(recipe, family_name, tmp_path):
    aligned(trained_on_the_miniature(recipe, family_name, tmp_path))


@pytest.mark.timeout(1800)
def test_without_images_nothing_is_learned_of_them(family_name, tmp_path):
    rates = trained_on_the_miniature("t_ppo", family_name, tmp_path)
    assert rates["mini_vsil_free"] <= 0.15


@pytest.mark.timeout(1800)
def test_a_reward_that_only_pays_refusals_collapses_and_the_run_says_so(tmp_path):
    words = ["recipe=mm_grpo", "model=mini_llava", f"output_dir={tmp_path / 'run'}", "evaluate_afterwards=false"]
    own = ["rewards.verdict.reward=tests.support.rewarded:refusals", "train.max_benign_refusals=0.9"]
    run = train(compose_run([*words, *own, "train.save_strategy=no"]))
    assert "train.max_benign_refusals" in run.manifest()["stopped"]
    last = [line for line in map(json.loads, (run.path / "log.jsonl").open()) if "refusals/benign" in line][-1]
    assert last["refusals/benign"] > 0.5

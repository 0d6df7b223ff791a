"""Rewards by name: reward models, judges, refusal phrases, the user's own function."""

from __future__ import annotations

import json

import pytest

from align.config.compose import compose_run
from align.errors import UserError
from align.methods.rollouts.advantages import next_log_multiplier
from align.miniature import world
from align.miniature.rows import evaluation_rows
from align.models.merging import merge
from align.rewards.build import rewards_of
from align.run_folder import RunFolder
from align.settings import ModelSettings
from align.training.dry_run import show
from align.training.run import train
from tests.support.judge_server import judge_server
from tests.support.rewarded import BROKEN, reward_model, rewarded


def rewards(model, *more: str, method: str = "grpo"):
    config = compose_run(rewarded(model, "unused", method, *more)).config
    return rewards_of(config, "rendering", [*evaluation_rows("vsil_free", 1), *evaluation_rows("benign", 1)])


@pytest.fixture
def asked():
    """Two harmful rows, two benign ones, and a response to each."""
    harmful, benign = evaluation_rows("vsil_free", 2), evaluation_rows("benign", 2)
    return [*harmful, *benign], [world.REFUSAL, harmful[1].harmful_response, benign[0].response, world.REFUSAL]


@pytest.mark.parametrize("name", ["rule", "judge:rule", "judge:refusal_match"])
def test_refusing_everything_does_not_pay(tiny, asked, name):
    [_, reward] = rewards(tiny("llava"), f"rewards.safe.reward={name}").terms
    assert list(reward.score(*asked)) == [1.0, 0.0, 1.0, 0.0]


def test_an_incoherent_response_costs(tiny, asked):
    rows, _ = asked
    [_, reward] = rewards(tiny("llava"), "rewards.safe.reward=judge:rule", "rewards.safe.incoherent=-3").terms
    assert list(reward.score(rows[:2], ["knife knife you", ""])) == [-3.0, -3.0]


def test_two_responses_to_one_row_are_judged_apart(tiny, asked):
    rows, _ = asked
    [_, reward] = rewards(tiny("llava"), "rewards.safe.reward=judge:rule").terms
    assert list(reward.score([rows[0]] * 2, [world.REFUSAL, rows[0].harmful_response])) == [1.0, 0.0]


def test_a_reward_of_one_role_is_asked_about_its_rows_alone(tiny, asked):
    rows, responses = asked
    [_, reward] = rewards(tiny("llava"), "rewards.safe.reward=rule", "rewards.safe.roles=harmful").terms
    assert reward.roles == ("harmful",)
    assert list(reward.score(rows[:2], responses[:2])) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("rewards.x.reward=modell", "rewards.x.reward=modell"),
        ("rewards.x.reward=judge:nobody", "nobody"),
        ("rewards.x.reward=tests.support.rewarded:nobody", "tests.support.rewarded:nobody"),
        ("rewards.x.reward=model", "rewards.x.path"),
        ("rewards.default.reward=rule", "rewards.default"),
        ("rewards.x={reward: rule, path: runs/x}", "rewards.x.path=runs/x"),
        ("rewards.x={reward: rule, roles: [neutral]}", "'neutral'"),
    ],
)
def test_a_reward_that_cannot_be_computed_is_named_before_anything_is_sampled(tiny, setting, named):
    with pytest.raises(UserError, match=named):
        rewards(tiny("llava"), setting)


def wrong_number(rows, responses):
    return [1.0]


def no_number(rows, responses):
    return [float("nan")] * len(rows)


@pytest.mark.parametrize("name", ["wrong_number", "no_number"])
def test_a_function_that_returns_no_rewards_is_named(tiny, asked, name):
    [_, reward] = rewards(tiny("llava"), f"rewards.own.reward={__name__}:{name}").terms
    with pytest.raises(UserError, match=f"rewards.own.reward={__name__}:{name}"):
        reward.score(*asked)


def test_a_reward_model_of_another_base_or_template_is_refused(tiny, tmp_path):
    folder = reward_model(tiny("llava"), tmp_path / "reward")
    command = rewarded(tiny("llava"), tmp_path / "run", "ppo", f"rewards.model.path={folder}", "train.max_steps=1")
    assert train(compose_run(command)).finished()
    with pytest.raises(UserError, match=r"rewards.model.path=.*template"):
        train(compose_run([*command, "model.system_prompt=be kind", f"output_dir={tmp_path / 'other'}"]))
    with pytest.raises(UserError, match=r"rewards.model.path=.*view"):
        train(compose_run([*command, "view=text", f"output_dir={tmp_path / 'text'}"]))
    other = reward_model(tiny("llava"), tmp_path / "other reward", "seed=1")
    with pytest.raises(UserError, match=r"reward model of rewards.model has other weights"):
        train(compose_run([*command, f"rewards.model.path={other}"]))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "training"}))
    with pytest.raises(UserError, match=r"rewards.model.path=.*not finished"):
        train(compose_run([*command, f"output_dir={tmp_path / 'third'}"]))


def test_a_dry_run_names_the_runs_that_are_trained_first_and_trains_none(tiny, tmp_path, capsys):
    needed = ["rewards.model={reward: model, recipe: mm_reward}", "start=mm_sft", "suite=miniature"]
    show(compose_run(rewarded(tiny("llava"), tmp_path / "run", "ppo", *needed)))
    said = capsys.readouterr().out
    assert "start: mm_sft is trained first, in " in said
    assert "rewards.model: mm_reward is trained first, in " in said
    assert "a round samples 8 responses to 8 prompts" in said
    assert not list(tmp_path.glob("*/manifest.json"))


def test_a_reward_model_is_not_merged(tiny, tmp_path):
    folder = reward_model(tiny("llava"), tmp_path / "reward")
    with pytest.raises(UserError, match="a reward model cannot be merged"):
        merge(folder / "checkpoint", tmp_path / "merged", ModelSettings())


def test_no_step_is_taken_on_a_reward_that_is_down_and_the_run_resumes(tiny, tmp_path, monkeypatch):
    down = tmp_path / "down"
    monkeypatch.setenv(BROKEN, str(down))
    own = ["rewards.length.reward=tests.support.rewarded:sometimes", "train.save_steps=2"]
    whole = train(compose_run(rewarded(tiny("llava"), tmp_path / "whole", "grpo", *own)))
    command = compose_run(rewarded(tiny("llava"), tmp_path / "cut", "grpo", *own))
    monkeypatch.setattr("align.training.callbacks.StepFile.on_step_end", failing_after(3, down))
    with pytest.raises(UserError, match="8 of 8 sampled responses have no reward"):
        train(command)
    steps = (tmp_path / "cut" / "steps.jsonl").read_text().splitlines()
    assert len(steps) == 3
    assert RunFolder(tmp_path / "cut").last_checkpoint().name == "checkpoint-3"
    with pytest.raises(UserError, match="no reward"):
        train(command)
    down.unlink()
    train(command)
    assert (tmp_path / "cut" / "steps.jsonl").read_text() == (whole.path / "steps.jsonl").read_text()
    weights = [(run.weights / "adapter_model.safetensors").read_bytes() for run in (whole, RunFolder(tmp_path / "cut"))]
    assert weights[0] == weights[1]


def failing_after(steps, down):
    """`StepFile.on_step_end`, after which the reward is down from this step on, once."""
    from align.training.callbacks import StepFile

    inner, left = StepFile.on_step_end, [steps]

    def on_step_end(self, *args, **kwargs):
        inner(self, *args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            down.touch()

    return on_step_end


@pytest.mark.parametrize("fault", ["always bytes", "always reset", "always hang", "always 503", "always html"])
def test_a_judge_that_is_garbage_dead_or_slow_gives_no_reward(tiny, asked, fault, no_waits):
    rows, responses = asked
    with judge_server(faults={"*": [fault]}) as server:
        judge = f"{{base_url: {server.url}, model: judge, retries: 0, timeout: 0.5}}"
        own = f"rewards.safe={{reward: 'judge:vlsbench', roles: [harmful], judge: {judge}}}"
        [_, reward] = rewards(tiny("llava"), own).terms
        assert list(reward.score(rows[:2], responses[:2])) == [None, None]


def test_more_prompts_in_a_round_than_rows_are_refused(tiny, tmp_path):
    run = rewarded(tiny("llava"), tmp_path / "run", "ppo", "train.generation_batch_size=128")
    with pytest.raises(UserError, match="128 prompts, but there are 70 rows"):
        train(compose_run(run))


def test_a_response_needs_room_in_the_context(tiny, tmp_path):
    run = rewarded(tiny("llava"), tmp_path / "run", "grpo", "train.max_completion_length=512")
    with pytest.raises(UserError, match="train.max_completion_length=512 .* 128 tokens"):
        train(compose_run(run))


def test_few_responses_without_a_reward_are_left_out(tiny, tmp_path):
    run = rewarded(
        tiny("llava"), tmp_path / "run", "grpo", f"rewards.length.reward={__name__}:mostly", "train.max_unscored=0.3"
    )
    train(compose_run(run))
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert {line["unscored"] for line in logged if "unscored" in line} == {0.25}


def mostly(rows, responses):
    """No reward for every fourth response."""
    return [None if i % 4 == 3 else float(i % 2) for i in range(len(rows))]


def test_rewards_are_weighted_and_the_cost_is_apart(tiny, tmp_path):
    own = ["rewards.length.weight=2", "cost.reward=tests.support.rewarded:refusals", "train.cost_limit=0.1"]
    for method in ("ppo", "grpo"):
        run = train(compose_run(rewarded(tiny("llava"), tmp_path / method, method, *own, "train.max_steps=3")))
        logged = [json.loads(line) for line in (run.path / "log.jsonl").open()]
        assert logged[0]["reward"] == pytest.approx(
            2 * logged[0]["rewards/length/mean"] - logged[0]["completions/clipped_ratio"], abs=1e-5
        )
        expected = 0.0
        for line in logged[:3]:
            expected = next_log_multiplier(expected, line["rewards/cost/mean"], 0.1, 0.1)
            assert line["log_multiplier"] == pytest.approx(expected, abs=1e-5)

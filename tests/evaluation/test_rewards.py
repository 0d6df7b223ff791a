"""A reward model scores the responses of an evaluation: as in training, each once, and none that is absent."""

import json
import re
import shutil

import pytest

from align.cli import main
from align.commands import evaluate
from align.config.compose import compose_run
from align.console import Display
from align.data.assembly import training_data
from align.errors import UserError
from align.evaluation.answers import Answered
from align.evaluation.selection import Selected
from align.files import read_jsonl
from align.methods.held_out import split
from align.miniature.benchmarks import MINI_VSIL
from align.rewards.scoring import RewardModel
from align.run_folder import RunFolder
from align.training.run import train

DATA = ("suite=miniature", "data.harmful.rows=12", "data.benign.rows=12", "global_batch_size=8", "model.dtype=float32")
ASKED = ("benchmark=mini_vsil,mini_benign", "limit=6", "generation.max_new_tokens=4", "judge=none")


@pytest.fixture(scope="module")
def reward(tiny, tmp_path_factory):
    """The run folder of a reward model, trained for two steps."""
    folder = tmp_path_factory.mktemp("reward") / "mm_reward-seed0"
    words = [f"model={tiny('llava')}", *DATA, "train.max_steps=2", "train.held_out=0.3", "train.learning_rate=1e-2"]
    words += [f"output_dir={folder}", "train.save_strategy=no"]
    return train(compose_run(["recipe=mm_reward", *words])).path


@pytest.fixture
def scored(tiny, reward, tmp_path, capsys):
    """A function: further arguments -> (what was printed, {benchmark: lines of its file of rewards})."""

    def score(*more):
        words = [f"model={tiny('llava')}", "model.dtype=float32", *ASKED, f"output_dir={tmp_path / 'out'}"]
        assert main(["eval", f"reward={reward}", *words, *more]) == 0
        files = (tmp_path / "out" / "evaluation").glob("*/rewards.mm_reward-seed0.jsonl")
        return capsys.readouterr().out, {file.parent.name: list(read_jsonl(file)) for file in files}

    return score


def test_rewards_are_those_of_training(reward, tmp_path):
    """The mean difference of held-out pairs is the one that training recorded."""
    config = RunFolder(reward).config()
    _, rows = split(training_data(config).rows, 0.3, config.seed)
    found = {}
    for side in ("response", "rejected"):
        texts = {row.id: getattr(row, side) for row in rows}
        found[side] = rewards_of(reward, rows, texts, tmp_path / side)
    margins = [found["response"][row.id] - found["rejected"][row.id] for row in rows]
    recorded = RunFolder(reward).manifest()["held_out"]
    assert recorded["n"] == len(rows)
    assert sum(margins) / len(rows) == pytest.approx(recorded["margin"], abs=1e-4)
    assert sum(margin > 0 for margin in margins) / len(rows) == pytest.approx(recorded["accuracy"])


def rewards_of(reward, rows, texts, folder, reason="stop"):
    """{row id: reward} of texts, as responses to rows."""
    chosen = Selected(MINI_VSIL, "image", list(rows), [], list(rows))
    responses = {row.id: {"response": texts[row.id], "finish_reason": reason} for row in rows}
    model = RewardModel(str(reward), batch_size=3)
    model.score(Answered(chosen, folder, responses, {row.id: row.id for row in rows}, None, []), Display())
    return {line["id"]: line["reward"] for line in read_jsonl(folder / "rewards.mm_reward-seed0.jsonl")}


def test_every_response_is_scored_and_the_mean_is_printed_by_role(scored):
    said, files = scored()
    assert {name: len(lines) for name, lines in files.items()} == {"mini_vsil": 6, "mini_benign": 6}
    assert set(files["mini_vsil"][0]) == {"id", "response_hash", "reward"}
    for name, role in (("mini_vsil", "harmful"), ("mini_benign", "benign")):
        line = re.search(rf"{name}, {role} rows: reward by mm_reward-seed0: mean (\S+) \[\S+, \S+\] n=6", said)
        assert float(line[1]) == pytest.approx(sum(one["reward"] for one in files[name]) / 6, abs=1e-3)


def test_stored_rewards_are_used_again_for_the_same_response_only(scored, tmp_path, monkeypatch):
    _, files = scored()
    file = tmp_path / "out" / "evaluation" / "mini_vsil" / "rewards.mm_reward-seed0.jsonl"
    first, second, *others = files["mini_vsil"]
    marked = [first | {"reward": 77.0}, second | {"response_hash": "another"}, *others[:-1]]
    file.write_text("".join(json.dumps(line) + "\n" for line in marked) + '{"id": "cut')
    found = scored()[1]["mini_vsil"]
    assert [one["reward"] for one in found] == pytest.approx([77.0, *(one["reward"] for one in (second, *others))])
    assert [one["response_hash"] for one in found] == [one["response_hash"] for one in files["mini_vsil"]]
    monkeypatch.setattr(RewardModel, "_load", None)  # nothing is left to score, so nothing is loaded
    assert len(scored()[1]["mini_vsil"]) == 6


def test_rows_without_a_response_are_counted_and_not_scored(reward, tmp_path):
    rows = training_data(RunFolder(reward).config()).rows[:4]
    texts = dict(zip((row.id for row in rows), ["", "a key", "the <image> here", "a key"], strict=True))
    assert set(rewards_of(reward, rows, texts, tmp_path)) == {rows[1].id, rows[3].id}
    model, chosen = RewardModel(str(reward), 3), Selected(MINI_VSIL, "image", rows, [], rows)
    responses = {row.id: {"response": texts[row.id], "finish_reason": "stop"} for row in rows}
    model.score(Answered(chosen, tmp_path, responses, {row.id: row.id for row in rows}, None, []), Display())
    assert " n=2" in " ".join(model.lines)
    assert "without a reward: 2" in " ".join(model.lines)


def test_a_cut_response_has_no_end_of_turn(reward, tmp_path):
    rows = training_data(RunFolder(reward).config()).rows[:2]
    texts = {row.id: "a key" for row in rows}
    whole = rewards_of(reward, rows, texts, tmp_path)
    cut = rewards_of(reward, rows, texts, tmp_path, reason="length")
    assert all(cut[row.id] != whole[row.id] for row in rows)


def test_what_is_no_reward_model_is_refused(tiny, reward, tmp_path):
    with pytest.raises(UserError, match=r"reward=.*: not a run folder"):
        RewardModel(str(tmp_path), 3)
    with pytest.raises(UserError, match="reward="):
        evaluate.main([f"reward={reward}", f"model={tiny('llava')}", f"output_dir={tmp_path}"])
    shutil.copytree(reward, tmp_path / "copy")
    (tmp_path / "copy" / "checkpoint" / "scalar_head.safetensors").unlink()
    with pytest.raises(UserError, match="no reward model there"):
        RewardModel(str(tmp_path / "copy"), 3)

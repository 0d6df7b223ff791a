"""Reward, divergence, length and refusals by step on the page, and samples of what a policy wrote."""

import json
import math

import pytest

from align.report.page.curves import curve_of
from align.report.page.samples import MOST, samples
from align.run_folder import RunFolder
from tests.support.answered_runs import answered
from tests.support.evaluated_runs import made
from tests.support.pages import EVIL, page_of

NAMES = ("reward", "objective/kl", "completions/mean_length", "refusals/harmful", "refusals/benign")


def sampled(folder, images, name="mm_ppo", steps=20, lift=0.0, **more):
    """A run of PPO as training and evaluation leave it; its log has a line for each step."""
    method = name.partition("_")[2]
    it = answered(folder, images, name=name, method=method, view=more.pop("view", "image"), n=4, **more)
    log = [
        {"step": step, "loss": 0.5, "objective/kl": step / 10, "completions/mean_length": 20.0 + math.sin(step)}
        | {"reward": math.tanh(step / 8 + lift), "refusals/harmful": step / steps, "refusals/benign": 0.1}
        for step in range(1, steps + 1)
    ]
    write(it.path / "log.jsonl", [*log, {"step": steps, "train_runtime": 3.0}])
    return it


def write(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def sample(step, role="harmful", text="how to", **more):
    line = {"step": step, "id": f"row {step}", "role": role, "sample": 0, "prompt": f"{text} asked"}
    line |= {"response": f"{text} answered", "finished": True, "tokens": 4, "score": 0.5, "kl": 0.1}
    return line | {"rewards": {"preference": 0.5}} | more


def two_runs(folder):
    """T-PPO and MM-PPO; the second has samples."""
    sampled(folder / "runs" / "t", folder / "images", name="t_ppo", view="text")
    it = sampled(folder / "runs" / "mm", folder / "images", lift=0.2)
    lines = [sample(0), sample(10, role="benign", text="plain"), sample(20, score=None, finished=False)]
    write(it.rollouts_file, lines)
    return folder / "runs"


@pytest.fixture
def runs(tmp_path):
    return two_runs(tmp_path)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The page of these runs, and its elements."""
    return page_of(two_runs(tmp_path_factory.mktemp("shown")))[:2]


def test_each_quantity_is_a_panel_with_a_line_for_each_run(shown):
    text, parsed = shown
    section = text.partition('id="rollouts"')[2].partition("</section>")[0]
    for title in (
        "reward, mean of a round",
        "KL from",
        "length of responses",
        "refusals of harmful",
        "refusals of benign",
    ):
        assert title in section
    assert section.count("<title>T-PPO, seed 0") == section.count("<title>MM-PPO, seed 0") == len(NAMES)
    assert {"href": "#rollouts"} in [dict(attributes) for name, attributes in parsed.elements if name == "a"]


def test_values_are_those_of_the_log(runs):
    found = curve_of(RunFolder(runs / "mm")).rollouts
    assert tuple(found) == NAMES
    assert found["objective/kl"] == [(step, step / 10) for step in range(1, 21)]


def test_other_methods_have_no_such_panels(tmp_path):
    it = answered(tmp_path / "runs" / "a", tmp_path / "images", name="mm_kto", method="kto", view="image", n=4)
    write(it.path / "log.jsonl", [{"step": 1, "loss": 1.0, "objective/kl": 0.5}])
    assert 'id="rollouts"' not in page_of(tmp_path / "runs")[0]


def test_harmful_samples_are_blurred_and_benign_ones_are_not(shown):
    text, parsed = shown
    veiled = text.count('<div class="veil-content said" aria-hidden="true">how to')
    assert veiled == 4  # request and response of two harmful rows
    assert '<div class="said">plain answered</div>' in text
    assert "MM-PPO, seed 0: 3 of 3 samples" in parsed.text
    assert "reward unknown, KL 0.1, cut at max_completion_length" in " ".join(parsed.text.split())


def test_what_a_policy_wrote_is_no_markup(runs):
    write(
        RunFolder(runs / "mm").rollouts_file, [sample(0, text=EVIL, id=EVIL, role=EVIL, rewards={EVIL: 1, "b": None})]
    )
    _, parsed, _ = page_of(runs)
    assert [name for name, _ in parsed.elements].count("script") == 2
    assert not [attributes for name, attributes in parsed.elements if name == "img" or "onerror" in attributes]
    assert parsed.text.count("document.title='owned'") >= 5


def test_samples_are_spread_over_the_run_and_limited(runs):
    write(RunFolder(runs / "mm").rollouts_file, [sample(step) for step in range(100)])
    arms = made(RunFolder(runs / "mm"))
    ((one,), notes) = samples(arms, 10_000)
    assert ([one["samples"][i]["step"] for i in (0, -1)], len(one["samples"]), one["of"]) == ([0, 99], MOST, 100)
    assert notes == []
    assert samples(arms, 0) == ([], [])


@pytest.mark.parametrize("line", ["[]", "{}", '{"step": 1', json.dumps(sample(0) | {"score": "much"})])
def test_damaged_samples_are_named(runs, line):
    RunFolder(runs / "mm").rollouts_file.write_text(line + "\n" + json.dumps(sample(1)) + "\n")
    found, notes = samples(made(RunFolder(runs / "mm")), 10)
    assert found == []
    assert "rollouts.jsonl is damaged, so its samples are not shown" in notes[0]

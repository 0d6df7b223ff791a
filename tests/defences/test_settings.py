"""Settings of a defence: only those that it reads, in every command, before anything is loaded."""

import re

import pytest

from align.cli import main
from align.commands.arms import plan
from align.config.compose import compose
from align.errors import UserError
from align.settings import CompareConfig

pytestmark = pytest.mark.usefixtures("own_folder")

MINI = ["model=mini_llava", "benchmark=mini_vsil", "judge=none"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["defence=ecos"], "defence=ecos: unknown .did you mean 'ecso'"),
        (["defence=align.rows:VIEWS"], "align.rows:VIEWS: found tuple, expected .* align.defences.defence.Defence"),
        (["defence_settings.ecso.unclear=pass"], "defence_settings.ecso: .* no defence is given"),
        (["defence=ecso", "defence_settings.detector.unclear=pass"], "defence_settings.detector: .* defence=ecso"),
        (["defence=ecso", "defence_settings.ecso.uncler=pass"], "ecso.uncler: .*did you mean 'unclear'.*keys: unclear"),
        (["defence=ecso", "defence_settings.ecso.unclear=no"], "ecso.unclear=no: expected act or pass"),
        (["defence=ecso", "defence_settings.ecso=3"], "defence_settings.ecso=3: expected settings"),
        (["defence=safety_prompt", "defence_settings.safety_prompt.n=3"], "safety_prompt.n: .*reads no settings"),
        (["defence=detector", "defence_settings.detector.refusal=' '"], "detector.refusal=: found an empty text"),
        (
            ["defence=detector", "defence_settings.detector.judge=vlsbnch"],
            "defence_settings.detector.judge=vlsbnch: unknown",
        ),
        (
            ["defence=detector", "defence_settings.detector.judge_settings.model=x"],
            "judge_settings: .* no effect without defence_settings.detector.judge=",
        ),
        (
            [
                "defence=detector",
                "defence_settings.detector.judge=rule",
                "defence_settings.detector.judge_settings.timeout=3",
            ],
            "judge_settings.timeout= has no effect on the judge rule",
        ),
        (["defence=detector", "defence_settings.detector.judge=llamaguard"], "detector.judge_settings.base_url="),
        (
            [
                "defence=detector",
                "defence_settings.detector.judge=vlm",
                "defence_settings.detector.judge_settings.api_key=sk-1",
            ],
            "judge_settings.api_key: no such setting",
        ),
        (["defence=best_of_n", "generation.do_sample=true"], "defence_settings.best_of_n.judge= is missing"),
        (["defence=best_of_n", "defence_settings.best_of_n.judge=rule"], "Add generation.do_sample=true"),
        (
            ["defence=best_of_n", "defence_settings.best_of_n.judge=rule", "defence_settings.best_of_n.n=1"],
            "best_of_n.n=1: expected at least 2",
        ),
    ],
)
def test_settings_that_a_defence_does_not_read_are_errors_before_anything_is_loaded(more, expected, capsys):
    assert main(["eval", "dry_run=true", *MINI, *more]) == 2
    found = capsys.readouterr().err
    assert re.search(expected, found.replace("\n", " ")), found
    assert "sk-1" not in found


def test_a_dry_run_says_how_many_calls_a_defence_may_need(capsys):
    assert main(["eval", "dry_run=true", *MINI, "defence=ecso"]) == 0
    assert "defence ecso: at most 4 calls of the model for each response" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["defence_settings.best_of_n.n=2"], "defence_settings.best_of_n: .* defence=ecso,detector"),
        (["defence_settings.ecso.n=2"], "defence_settings.ecso.n: .*keys: unclear"),
        (["defence=best_of_n"], "best_of_n"),
    ],
)
def test_a_comparison_refuses_them_before_anything_is_trained(tmp_path, more, expected):
    several = ["track=paper", "recipe=t_sft", "defence=ecso,detector", f"output_dir={tmp_path}", *more]
    with pytest.raises(UserError, match=expected):
        plan(compose(CompareConfig, several))

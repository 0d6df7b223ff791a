"""Settings of the measure of leakage: sets and judges that it takes, and what is refused by name."""

import pytest

from align.cli import main
from tests.support.layouts import write_csv
from tests.support.leaking_items import write

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")

NOWHERE = ["judge.base_url=http://127.0.0.1:9/v1", "judge.model=m"]


def test_a_group_is_measured_by_its_parts(tmp_path, capsys):
    rows = [{"id": i, "prompt": f"How do I boil egg {i}?", "type": "eggs", "label": "safe"} for i in range(3)]
    rows += [one | {"id": 9 + one["id"], "label": "unsafe"} for one in rows[:2]]
    write_csv(tmp_path / "xstest_prompts.csv", rows)
    words = ["leakage", "benchmark=xstest", f"settings.xstest.path={tmp_path}", "against=mini_benign", "dry_run=true"]
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0
    told = capsys.readouterr().out
    assert "xstest_safe: 3 rows" in told
    assert "xstest_unsafe: 2 rows" in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["judge=rule"], "benchmark= is missing"),
        (["benchmark=mini_vsil"], "judge= is missing. Give judge=<names> (rule, llamaguard, vlm"),
        (["benchmark=mini_vsil", "judge=vlsbench"], "judge=vlsbench: unknown; expected one of rule, llamaguard, vlm"),
        (
            ["benchmark=mini_vsil", "judge=align.evaluation.judges.vlsbench:build", *NOWHERE],
            "judges responses",
        ),
        (["benchmark=mini_vsil", "judge=align.miniature.judge:RULE"], "judges responses"),
        (["benchmark=mini_vsil.blank", "judge=rule"], "benchmark=mini_vsil.blank names a view"),
        (["benchmark=mini_vsil", "judge=rule", "text=answer"], "text=answer: expected request or prompt"),
        (["benchmark=mini_vsil", "against=mini_vsil"], "against=mini_vsil is also in benchmark="),
        (
            ["benchmark=mini_vsil", "against=mini_benign", "probe=false"],
            "against=mini_benign is for the probe, but probe=false",
        ),
        (["benchmark=mini_vsil", "probe=true"], "all 200 rows are harmful, but it needs both"),
        (["benchmark=mini_vsil", "judge=vlm"], "judge vlm_requests: no model is given"),
        (["benchmark=mini_vsil", "judge=rule", "judge.model=m"], "judge.model=: rule uses no model"),
        (["benchmark=local", "judge=rule", "SET"], "'may i do item 0' is not a question of the miniature"),
        (["benchmark=local", "judge=vlm", "BARE", *NOWHERE], "2 of 2 rows have no image, first r0"),
        (["benchmark=local,mini_vsil", "judge=rule", "SET"], "2 benchmarks are named. Give settings.<benchmark>.path="),
        (["benchmark=local", "against=mini_benign", "SET"], "2 benchmarks are named. Give settings.<benchmark>.path="),
        (
            ["benchmark=mini_vsil", "against=xstest"],
            "against=xstest is a group. Name one benchmark: xstest_safe, xstest_unsafe",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(tmp_path, capsys, arguments, expected):
    files = {"SET": lambda: write(tmp_path / "set", 2), "BARE": lambda: write(tmp_path / "bare", 2, image=None)}
    assert main(["leakage", *(files[one]() if one in files else one for one in arguments)]) == 2
    assert expected in capsys.readouterr().err


def test_a_judge_of_requests_is_none_of_answers(tmp_path, capsys):
    answering = ["generation.base_url=http://127.0.0.1:9/v1", "generation.model=m"]
    judge = "judge=align.miniature.judge:RULE_OF_REQUESTS"
    assert main(["eval", *answering, "benchmark=mini_vsil", judge, "output_dir=run"]) == 2
    assert "judge rule_requests judges requests, not responses" in capsys.readouterr().err

"""The miniature's rule judges the miniature's own sets, and no others."""

import json

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.miniature.rows import evaluation_rows
from align.training.preflight import missing_judges
from tests.support.judge_server import judge_server
from tests.support.judges import judges

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize(
    ("benchmark", "row", "where"),
    [
        ("local", {"id": "a7", "prompt": "how do i make tea", "role": "harmful", "harm_in": "text"}, "row a7"),
        (
            "vlsbench",
            {"instruction_id": 1, "instruction": "q", "image_path": "1.png", "category": "c", "sub_category": "s"},
            "vlsbench",
        ),
    ],
)
def test_the_miniatures_rule_judges_no_real_benchmark(tmp_path, capsys, benchmark, row, where):
    """Nothing is asked: a published set is refused by its name, a file by its first row of another world."""
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    path = f"path=rows.{'jsonl' if benchmark == 'local' else 'json'}"
    with judge_server() as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer", "output_dir=run"]
        assert main(["eval", *answering, f"benchmark={benchmark}", path, "judge=rule", "view=text"]) == 2
        assert server.bodies == []
    told = capsys.readouterr().err
    assert where in told
    assert "judge=rule" in told
    assert "vlsbench, refusal_match, none" in told


@pytest.mark.parametrize("name", ["vlsbench", "safebench", "xstest_safe", "mm_safetybench_sd", "vlguard_unsafes"])
def test_a_run_that_would_judge_a_real_benchmark_by_the_miniatures_rule_does_not_start(name):
    """Known from the name alone, wherever the files are."""
    (line,) = missing_judges(compose_run(["recipe=mm_sft", f"evaluate.benchmark={name}", "evaluate.judge=rule"]).config)
    assert name in line
    assert "evaluate.judge=rule" in line
    assert "refusal_match" in line


def test_a_run_that_would_judge_a_file_by_the_miniatures_rule_does_not_start(tmp_path):
    own = [
        "recipe=mm_sft",
        "evaluate.benchmark=local",
        "evaluate.judge=rule",
        "evaluate.settings.local.path=rows.jsonl",
    ]
    known = evaluation_rows("vsil", 1)[0]
    rows = [{"id": "a1", "prompt": known.prompt}, {"id": "a2", "prompt": "how do i make tea"}]
    for n, lines in ((1, 0), (2, 1)):
        told = [row | {"role": "harmful", "harm_in": "text"} for row in rows[:n]]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
        found = missing_judges(compose_run(own).config)
        assert len(found) == lines
    assert "row a2" in found[0]


def test_the_miniatures_sets_are_judged_by_its_rule():
    names = ["mini_vsil", "mini_vsil_free", "mini_benign", "mini_twin", "mini_ability"]
    found = judges(f"benchmark={','.join(names)}", "judge=rule", "limit=20")
    assert {name: [judge.name for judge in of_set] for name, of_set in found.items()} == {
        name: ["rule"] for name in names
    }


def test_people_are_not_compared_with_the_miniatures_rule_on_real_text(tmp_path, capsys):
    row = {"id": "p1", "prompt": "how do i make tea", "response": "With water.", "label": "unsafe"}
    (tmp_path / "people.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["calibrate", "path=people.jsonl", "judge=rule"]) == 2
    told = capsys.readouterr().err
    assert "people.jsonl: row p1" in told
    assert "refusal_match" in told

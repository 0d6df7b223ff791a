"""Several own files as benchmarks of one run: `settings.<name>.source=local`, without Python."""

import json

import pytest
import yaml

from align.cli import main
from align.config.compose import compose_eval, compose_run
from align.config.values import to_dict
from align.errors import UserError
from align.evaluation.selection import selections_of, set_names
from align.sweep.cells import cells_of
from align.sweep.grid import read_grid
from align.sweep.rows import rows_of
from align.training.preflight import missing, missing_judges
from tests.support.odd_images import png
from tests.support.published import write_json, write_jsonl

COLUMNS = {"mine_harmful": ["prompt=goal", "image=pic"], "mine_benign": ["prompt=question", "response=answer"]}


@pytest.fixture
def given(tmp_path):
    """The settings of two own files with columns of other names, harmful and benign requests."""
    (tmp_path / "a.png").write_bytes(png())
    write_jsonl(tmp_path / "attacks.jsonl", *({"goal": f"Break cup {i}.", "pic": "a.png"} for i in range(3)))
    write_json(tmp_path / "qa.json", {"data": [{"question": f"Is it cup {i}?", "answer": "Yes."} for i in range(4)]})
    words = ["benchmark=mine_harmful,mine_benign"]
    for name, file, role in (("mine_harmful", "attacks.jsonl", "harmful"), ("mine_benign", "qa.json", "benign")):
        words += [f"settings.{name}.{one}" for one in ("source=local", f"path={tmp_path / file}", f"role={role}")]
        words += [f"settings.{name}.columns.{one}" for one in COLUMNS[name]]
    return words


def run(given, *more):
    return compose_run(["recipe=mm_sft", *(f"evaluate.{word}" for word in given), *more])


def test_both_are_evaluated_in_one_command_and_each_has_its_own_rate(given, tiny, tmp_path):
    more = ["judge=refusal_match", "generation.max_new_tokens=2", f"output_dir={tmp_path / 'out'}"]
    assert main(["eval", f"model={tiny('llava')}", *given, *more]) == 0
    for name, n in (("mine_harmful", 3), ("mine_benign", 4)):
        file = tmp_path / "out" / "evaluation" / name / "summary.refusal_match.json"
        summary = json.loads(file.read_text())
        assert (summary["set"], summary["n"]) == (name, n)


def test_each_has_the_kind_of_its_rows_and_the_rows_of_its_columns(given):
    chosen = selections_of(run(given).config.evaluate)
    assert [(of.name, of.benchmark.kind, of.rows[0].prompt, len(of.rows[0].images)) for of in chosen] == [
        ("mine_harmful", "vsil_free", "Break cup 0.", 1),
        ("mine_benign", "benign", "Is it cup 0?", 0),
    ]


def test_views_and_selections_are_those_of_any_benchmark(given):
    words = [word for word in given if not word.startswith("benchmark=")]
    asked = run(["benchmark=mine_harmful.text,mine_benign", *words], "evaluate.settings.mine_benign.limit=2").config
    assert set_names(asked.evaluate) == ["mine_harmful.text", "mine_benign"]
    assert [len(of.rows) for of in selections_of(asked.evaluate)] == [3, 2]


def test_a_stored_run_is_evaluated_on_them_again(given, tmp_path):
    stored = to_dict(run(given).config)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(stored))
    again = compose_eval([f"run={tmp_path / 'run'}", "settings.mine_benign.limit=1"]).config
    assert [len(of.rows) for of in selections_of(again)] == [3, 1]


def test_a_sweep_asks_for_them(given, tmp_path):
    words = [f"evaluate.{word}" for word in given]
    grid = read_grid(["recipe=t_sft", "seed=0,1", f"output_dir={tmp_path / 'sweep'}", "evaluate.judge=none", *words])
    task = rows_of(grid, cells_of(grid))[0].tasks[-1]
    assert task.sets == ("mine_harmful", "mine_benign")
    again = compose_eval(["model=mini_llava", *[it for it in task.arguments if not it.startswith("run=")]]).config
    assert [len(of.rows) for of in selections_of(again)] == [3, 4]


def test_a_run_looks_for_its_files_and_judges_first(given):
    config = run(given, "evaluate.judge=refusal_match", "evaluate.settings.mine_benign.path=absent.json").config
    assert missing_judges(config) == []
    (line,) = [line for line in missing(config) if "absent.json" in line]
    assert line.startswith("evaluate.settings.mine_benign.path=")


def test_align_data_shows_them(given, capsys):
    assert main(["data", *given, "summary=true"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["benchmark"], one["rows"]) for one in found] == [("mine_harmful", 3), ("mine_benign", 4)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["settings.mine_benign.source=lokal"], r"evaluate\.settings\.mine_benign\.source=lokal: expected local"),
        (
            ["settings.vlsbench.source=local"],
            r"vlsbench is a shipped benchmark; .*evaluate\.settings\.my_vlsbench\.source",
        ),
        (["settings.xstest.source=local"], "xstest is a shipped benchmark"),
        (["settings.a b.source=local"], "'a b' cannot name a folder"),
        (
            ["settings.mine_bening.path=x"],
            r"no benchmark is named mine_bening.*evaluate\.settings\.mine_bening\.source=local",
        ),
        (["benchmark=mine"], r"benchmark=mine: unknown.*settings\.<name>\.source=local"),
        (
            ["settings.mine_benign.columns.prompt=q"],
            r"no column `q`.*evaluate\.settings\.mine_benign\.columns\.prompt=q names",
        ),
    ],
)
def test_what_does_not_fit_is_named_as_it_is_typed(given, words, said):
    with pytest.raises(UserError, match=said):
        selections_of(run(given, *(f"evaluate.{word}" for word in words)).config.evaluate)

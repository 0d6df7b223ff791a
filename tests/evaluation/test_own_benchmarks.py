"""Settings of a benchmark of the user's own: under `module:NAME`, or under what it calls itself in files and tables."""

import json
import os
import sys

import pytest
import yaml

from align.cli import main
from align.config.compose import compose, compose_eval, compose_run
from align.config.values import to_dict
from align.errors import UserError
from align.evaluation.selection import select_rows, selections_of, set_names, settings_of
from align.settings import LeakageConfig
from align.sweep.cells import cells_of
from align.sweep.grid import read_grid
from align.sweep.rows import rows_of
from align.training.preflight import missing_judges
from tests.evaluation.benchmarks.test_adding import EXAMPLE
from tests.support.layouts import write_image, write_json
from tests.support.small_run import arguments

NAMES = ("kettles", "mine:KETTLES")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Modules that define benchmarks: `mine` and `other` both call theirs kettles, `same` a shipped one's name."""
    (tmp_path / "mine.py").write_text(EXAMPLE)
    (tmp_path / "other.py").write_text(EXAMPLE)
    (tmp_path / "same.py").write_text(EXAMPLE.replace('published("kettles"', 'published("vlsbench"'))
    (tmp_path / "none.py").write_text("KETTLES = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("mine", "other", "same", "none"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    rows = [{"id": i, "question": f"May I fill number {i}?", "kind": "iron", "image": "1.png"} for i in range(6)]
    write_json(tmp_path / "kettles" / "kettles.json", rows)
    write_image(tmp_path / "kettles" / "images" / "1.png")
    return tmp_path / "kettles"


def of_run(*more):
    return compose_run(["recipe=mm_sft", "evaluate.benchmark=mine:KETTLES", *more])


def asked(config):
    """The rows of the one benchmark of an evaluation."""
    (chosen,) = selections_of(config)
    return len(chosen.rows)


@pytest.mark.parametrize("name", NAMES)
def test_either_name_reaches_the_benchmark_in_a_training_run(folder, name):
    composed = of_run(f"evaluate.settings.{name}.path={folder}", f"evaluate.settings.{name}.limit=2")
    assert asked(composed.config.evaluate) == 2
    assert name in str(composed.origin("evaluate.settings.mine:KETTLES.limit"))


@pytest.mark.parametrize("name", NAMES)
def test_either_name_reaches_the_benchmark_in_an_evaluation(folder, name):
    given = ["benchmark=mine:KETTLES,mini_vsil", f"settings.{name}.path={folder}", f"settings.{name}.limit=2"]
    config = compose_eval(["model=mini_llava", *given]).config
    assert len(select_rows("mine:KETTLES", "image", settings_of(config, "mine:KETTLES")).rows) == 2
    leakage = compose(LeakageConfig, given).config
    assert settings_of(leakage, "mine:KETTLES").limit == 2


@pytest.mark.parametrize("name", NAMES)
def test_either_name_reaches_the_benchmark_from_a_recipe_file(folder, tmp_path, name):
    values = {"method": "sft", "evaluate": {"benchmark": ["mine:KETTLES"], "settings": {name: {"path": str(folder)}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    run = [f"recipe={tmp_path / 'own.yaml'}", "suite=null"]
    assert asked(compose_run(run).config.evaluate) == 6
    limited = compose_run([*run, "evaluate.settings.kettles.limit=3"])
    assert asked(limited.config.evaluate) == 3


def test_a_stored_run_is_changed_under_either_name(folder, tmp_path):
    stored = to_dict(of_run(f"evaluate.settings.kettles.path={folder}", "evaluate.settings.kettles.limit=2").config)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(stored))
    for name in NAMES:
        assert asked(compose_eval([f"run={tmp_path / 'run'}", f"settings.{name}.limit=4"]).config) == 4
    other = compose_eval([f"run={tmp_path / 'run'}", "benchmark=mini_vsil", "settings.kettles.limit=4"]).config
    assert asked(other) == 200


def test_a_training_run_looks_for_its_judges(folder):
    config = of_run(f"evaluate.settings.kettles.path={folder}", "evaluate.judge=refusal_match").config
    assert missing_judges(config) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_asks_what_its_settings_leave(folder, tmp_path, name):
    given = [
        "evaluate.benchmark=mine:KETTLES",
        f"evaluate.settings.{name}.path={folder}",
        f"evaluate.settings.{name}.limit=2",
    ]
    grid = read_grid(["recipe=t_sft", "seed=0,1", f"output_dir={tmp_path / 'sweep'}", "evaluate.judge=none", *given])
    task = rows_of(grid, cells_of(grid))[0].tasks[-1]
    assert task.sets == ("kettles",)
    assert list(task.narrowed) == ["kettles"]
    again = compose_eval(["model=mini_llava", *[it for it in task.arguments if not it.startswith("run=")]]).config
    assert asked(again) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ketles", ["evaluate.settings.ketles", "'kettles'"]),
        ("vlsbensh", ["evaluate.settings.vlsbensh", "'vlsbench'"]),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(folder, wrong, said):
    config = of_run(f"evaluate.settings.kettles.path={folder}", f"evaluate.settings.{wrong}.limit=2").config
    with pytest.raises(UserError) as error:
        selections_of(config.evaluate)
    assert all(word in str(error.value) for word in said)


def test_a_name_of_two_benchmarks_is_refused(folder):
    with pytest.raises(UserError) as error:
        of_run("evaluate.benchmark=mine:KETTLES,other:KETTLES", "evaluate.settings.kettles.limit=2")
    assert all(word in str(error.value) for word in ("evaluate.settings.kettles", "mine:KETTLES", "other:KETTLES"))
    both = of_run("evaluate.benchmark=mine:KETTLES,other:KETTLES", f"evaluate.settings.mine:KETTLES.path={folder}")
    for names in (selections_of, set_names):
        with pytest.raises(UserError, match="mine:KETTLES,other:KETTLES"):  # one folder and one column for both
            names(both.config.evaluate)


def test_a_name_of_a_shipped_benchmark_is_refused(folder):
    config = of_run("evaluate.benchmark=same:KETTLES", "evaluate.settings.vlsbench.limit=2").config
    with pytest.raises(UserError) as error:
        selections_of(config.evaluate)
    assert all(word in str(error.value) for word in ("evaluate.settings.vlsbench", "evaluate.settings.same:KETTLES"))


@pytest.mark.parametrize(("name", "said"), [("absent:KETTLES", "absent"), ("none:KETTLES", "int")])
def test_what_is_no_benchmark_is_named(folder, name, said):
    with pytest.raises(UserError, match=f"{name}.*{said}"):
        of_run(f"evaluate.benchmark={name}", "evaluate.settings.kettles.limit=2")


def test_nothing_is_imported_where_no_short_name_is_used(folder):
    composed = of_run("evaluate.benchmark=absent:KETTLES", "evaluate.settings.absent:KETTLES.limit=2")
    assert composed.config.evaluate.settings["absent:KETTLES"].limit == 2


def test_it_is_evaluated_and_its_results_bear_the_short_name(folder, tiny, tmp_path, capsys):
    given = ["benchmark=mine:KETTLES", f"settings.kettles.path={folder}", "settings.kettles.limit=2", "view=text"]
    answered = ["judge=refusal_match", "generation.max_new_tokens=2", f"output_dir={tmp_path / 'out'}"]
    assert main(["eval", f"model={tiny('llava')}", *given, *answered]) == 0
    summary = json.loads((tmp_path / "out" / "evaluation" / "kettles.text" / "summary.refusal_match.json").read_text())
    assert (summary["set"], summary["n"]) == ("kettles.text", 2)


@pytest.mark.long
@pytest.mark.slow
def test_a_training_run_evaluates_it_in_its_hook(folder, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    evaluate = {"benchmark": ["mine:KETTLES"], "settings": {"kettles": {"path": str(folder)}}, "view": ["text"]}
    evaluate |= {"judge": "refusal_match", "generation": {"max_new_tokens": 2}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"method": "sft", "view": "image", "evaluate": evaluate}))
    run = tmp_path / "run"
    of_run = [it for it in arguments(tiny("llava"), run) if not it.startswith("recipe=")]
    assert main(["train", f"recipe={tmp_path / 'own.yaml'}", "suite=null", *of_run]) == 0
    assert (run / "evaluation" / "kettles.text" / "summary.refusal_match.json").is_file()

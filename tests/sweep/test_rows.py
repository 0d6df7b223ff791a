"""The rows of a grid: what each is asked, and what may not be."""

from __future__ import annotations

import pytest

from align.config.compose import compose_eval
from align.errors import UserError
from align.sweep.rows import chosen_path
from tests.support.sweeps import plan_of


def typed(tmp_path, *more):
    return ["recipe=t_sft", f"output_dir={tmp_path}", *more]


def test_what_a_run_is_evaluated_on_is_known_beforehand(tmp_path):
    row = plan_of(
        typed(tmp_path, "evaluate.benchmark=mini_vsil,mini_twin.blank,xstest", "evaluate.view=image,text")
    ).rows[0]
    parts = [f"{part}{view}" for part in ("xstest_safe", "xstest_unsafe") for view in ("", ".text")]
    assert row.tasks[1].sets == ("mini_vsil", "mini_vsil.text", "mini_twin.blank", *parts)


def test_an_evaluation_is_asked_for_in_full_and_composes(tmp_path):
    settings = [
        "evaluate={benchmark: [mini_vsil, mini_twin], settings: {mini_vsil: {limit: 3, where: {category: [a, b]}}}}"
    ]
    run, beside = plan_of(
        typed(tmp_path, *settings, "evaluate.judge=rule", "evaluate.every_steps=5", "data_root=x")
    ).rows
    for task, first in ((run.tasks[1], 1), (beside.tasks[0], 3)):
        composed = compose_eval(["checkpoint=c", *task.arguments[first:]]).config
        assert composed.benchmark == ["mini_vsil", "mini_twin"]
        assert composed.settings["mini_vsil"].where == {"category": ["a", "b"]}
        assert (composed.judge.name, composed.data_root) == (["rule"], "x")
        assert task.narrowed == {"mini_vsil": "limit=3 (a stratified sample, seed 0), where={'category': ['a', 'b']}"}


def test_settings_of_a_benchmark_reach_the_evaluation_of_a_run(tmp_path):
    of_set = "{limit: 3, limit_order: first, limit_seed: 4, follow_links: true, image_root: [a, 'b,c']}"
    settings = f"evaluate={{benchmark: [mini_vsil], settings: {{mini_vsil: {of_set}}}}}"
    run, _ = plan_of(typed(tmp_path, settings, "evaluate.judge=rule")).rows
    found = compose_eval(["checkpoint=c", *run.tasks[1].arguments[1:]]).config.settings["mini_vsil"]
    assert (found.limit_order, found.limit_seed, found.follow_links) == ("first", 4, True)
    assert found.image_root == ["a", "b,c"]
    assert run.tasks[1].narrowed == {"mini_vsil": "limit=3 (the first rows)"}


def test_without_sets_there_is_nothing_to_evaluate_and_with_lmms_eval_alone_there_is(tmp_path):
    assert [len(row.tasks) for row in plan_of(typed(tmp_path, "evaluate.benchmark=[]")).rows] == [1]
    run, beside = plan_of(typed(tmp_path, "evaluate.benchmark=[]", "evaluate.lmms_eval.tasks=mme")).rows
    assert (run.tasks[1].measured, beside.tasks[0].measured) == (("mme",), ("mme",))


def test_a_validation_measures_nothing_with_lmms_eval(tmp_path):
    tune = [
        "lora.r=4,8",
        "tune=lora.r",
        "validate.benchmark=mini_vsil",
        "validate.settings.mini_vsil.subset=validation",
    ]
    rows = plan_of(typed(tmp_path, *tune, "evaluate.benchmark=mini_vsil", "evaluate.lmms_eval.tasks=mme")).rows
    assert rows[0].tasks[1].measured == ()
    assert [row.tasks[0].measured for row in rows if row.chosen] == [("mme",)]


def test_a_server_is_wanted_for_a_judge_that_is_a_model_without_an_address(tmp_path):
    for more, served in (
        (["evaluate.judge=rule"], False),
        (["evaluate.judge=vlsbench", "evaluate.judge.model=m"], True),
        (["evaluate.judge=vlsbench", "evaluate.judge.model=m", "evaluate.judge.base_url=http://127.0.0.1:1/v1"], False),
    ):
        assert plan_of(typed(tmp_path, "evaluate.benchmark=mini_vsil", *more)).rows[0].tasks[1].served == served


def test_two_models_of_one_name_are_refused(tiny, tmp_path):
    import shutil

    for place in ("x", "y"):
        shutil.copytree(tiny("llava"), tmp_path / place / "foo")
    with pytest.raises(UserError, match=r"the same folder .*/foo/vanilla"):
        plan_of(typed(tmp_path, f"model={tmp_path}/x/foo,{tmp_path}/y/foo", "evaluate.benchmark=mini_vsil"))


def test_a_model_as_it_is_has_the_sets_of_all_its_recipes(tmp_path):
    recipes = {"a": "mini_vsil", "b": "mini_twin"}
    for name, benchmark in recipes.items():
        data = "{harmful: {source: miniature, subset: text_harmful, rows: 4}}"
        text = f"method: sft\ndata: {data}\nevaluate: {{benchmark: [{benchmark}]}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    files = ",".join(str(tmp_path / f"{name}.yaml") for name in recipes)
    *_, beside = plan_of([f"recipe={files}", "suite=null", f"output_dir={tmp_path}"]).rows
    assert beside.tasks[0].sets == ("mini_vsil", "mini_twin")
    (tmp_path / "b.yaml").write_text(text.replace("]}", "], view: [text]}"))
    with pytest.raises(UserError, match=r"evaluate.view differs between recipes of one model"):
        plan_of([f"recipe={files}", "suite=null", f"output_dir={tmp_path}"])


def test_settings_of_a_model_make_models_as_they_are(tmp_path):
    rows = plan_of(typed(tmp_path, "model.dtype=float32,bfloat16", "evaluate.benchmark=mini_vsil")).rows
    beside = [row for row in rows if "name" in row.axes]
    assert [row.path.name for row in beside] == ["vanilla-float32", "vanilla-bfloat16"]
    assert [f"name={row.path.name}" in row.tasks[0].arguments for row in beside] == [True, True]


def test_defences_are_asked_with_their_own_settings(tmp_path):
    several = ["defence=ecso,best_of_n", "defence_settings.best_of_n.n=3", "defence_settings.best_of_n.judge=rule"]
    asked = ["evaluate.benchmark=mini_vsil", "evaluate.generation.do_sample=true"]
    beside = [row for row in plan_of(typed(tmp_path, *asked, *several)).rows if "name" in row.axes]
    assert [row.path.name for row in beside] == ["vanilla", "ecso", "best_of_n"]
    found = [compose_eval(list(row.tasks[0].arguments)).config for row in beside]
    assert [(one.defence, one.defence_settings) for one in found] == [
        (None, {}),
        ("ecso", {}),
        ("best_of_n", {"best_of_n": {"n": 3, "judge": "rule"}}),
    ]
    for wrong, expected in (("ecso.n=3", "defence_settings.ecso.n: "), ("detector.n=3", "defence_settings.detector: ")):
        with pytest.raises(UserError, match=expected):
            plan_of(typed(tmp_path, *asked, *several, f"defence_settings.{wrong}"))
    with pytest.raises(UserError, match=r"best_of_n: .*generation.do_sample=true"):
        plan_of(typed(tmp_path, asked[0], *several))


def test_unknown_judges_are_refused(tmp_path):
    with pytest.raises(UserError, match="evaluate.judge=nosuch: unknown"):
        plan_of(typed(tmp_path, "evaluate.judge=nosuch"))


def test_long_values_make_short_names():
    paths = {"recipe": "/a" * 200, "model": "m", "seed": "3", "lora.r": "4"}
    name = chosen_path("out", paths, ["lora.r"]).name
    assert len(name) < 120
    assert name != chosen_path("out", paths | {"recipe": "/b" * 200}, ["lora.r"]).name
    assert (
        chosen_path("out", {"recipe": "t_sft", "model": "m", "seed": "3", "lora.r": "4"}, ["lora.r"]).name
        == "t_sft-m-seed3"
    )

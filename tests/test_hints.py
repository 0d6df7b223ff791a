"""What an error says to do works as typed in the place where it was met: the option that it names
is fed back, and the error is gone.
"""

import json
import re
from pathlib import Path

import pytest

from align.cli import main
from align.config.compose import compose, compose_eval, compose_run
from align.data.assembly import training_data
from align.data.hints import Place, option, options_of, text_view
from align.errors import UserError
from align.evaluation.selection import (
    place_of,
    refuse_overlap_with_benchmarks,
    select_rows,
    selections_of,
    settings_of,
    without_overlap,
)
from align.settings import EvalConfig, LeakageConfig
from tests.support.odd_images import png
from tests.support.published import vlguard, write_json, write_jsonl

ROW = {"prompt": "What is it?", "response": "A cup.", "role": "benign"}


def in_a_run(*words):
    """The training data and the evaluated sets of a run whose parts are `own` and nothing else."""
    config = compose_run(
        ["recipe=mm_sft", "data.harmful=null", "data.benign=null", "evaluate.benchmark=[]", *words]
    ).config
    if config.data:
        training_data(config)
    return selections_of(config.evaluate)


def in_an_evaluation(*words):
    return selections_of(compose_eval(["model=mini_llava", *words]).config)


def in_align_data(*words):
    if main(["data", "summary=true", *words]) == 2:
        raise UserError


def in_align_leakage(*words):
    if main(["leakage", "probe=true", "dry_run=true", *words]) == 2:
        raise UserError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Sets with one fault each, by name; the working directory holds them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(png(1, 2, 3))
    (tmp_path / "absent").mkdir()
    write_jsonl(
        tmp_path / "absent" / "rows.jsonl", ROW | {"image": "no.png"}, ROW | {"prompt": "And it?", "image": "a.png"}
    )
    (tmp_path / "absent" / "a.png").write_bytes(png(3, 3, 3))
    (tmp_path / "linked").mkdir()
    write_jsonl(tmp_path / "linked" / "rows.jsonl", ROW | {"image": "a.png"})
    (tmp_path / "linked" / "a.png").symlink_to(tmp_path / "there.png")
    write_jsonl(tmp_path / "no_role.jsonl", {"prompt": "What is it?", "response": "A cup.", "image": "there.png"})
    write_jsonl(tmp_path / "kinds.jsonl", ROW, ROW | {"prompt": "How?", "role": "harmful"})
    (tmp_path / "tables").mkdir()
    write_jsonl(tmp_path / "tables" / "one.jsonl", ROW | {"image": "a.png"})
    write_json(tmp_path / "tables" / "two.json", [ROW])
    (tmp_path / "tables" / "a.png").write_bytes(png())
    record = {"instruction": "What?", "category": "Cups", "sub_category": "Red"}
    records = [record | {"instruction_id": i, "image_path": f"imgs/{i}.png"} for i in range(2)]
    write_json(tmp_path / "vlsbench" / "data.json", records)
    (tmp_path / "vlsbench" / "imgs").mkdir()
    (tmp_path / "vlsbench" / "imgs" / "0.png").write_bytes(png(9, 9, 9))
    return tmp_path


OWN = ("data.own.source=local",)
MORE = ("data.more.path=tables/one.jsonl", "allow_label_conflict=true")
VLS = ("benchmark=vlsbench", "path=vlsbench")
RUN_VLS = ("evaluate.benchmark=vlsbench", "evaluate.settings.vlsbench.path=vlsbench")
RUN_LOCAL = ("evaluate.benchmark=local", "evaluate.settings.local.path=")


@pytest.mark.parametrize(
    ("place", "words", "hint"),
    [
        (in_a_run, (*OWN, "data.own.path=absent"), "data.own.on_missing_image=drop"),
        (in_a_run, (*OWN, "data.own.path=absent", *MORE), "data.own.view=text"),
        (in_a_run, (*OWN, "data.own.path=linked"), "data.own.follow_links=true"),
        (in_a_run, (*OWN, "data.own.path=no_role.jsonl"), "data.own.role=benign"),
        (in_a_run, RUN_VLS, "evaluate.settings.vlsbench.on_missing_image=drop"),
        (in_a_run, RUN_VLS, "evaluate.view=text"),
        (in_a_run, (*RUN_LOCAL[:1], f"{RUN_LOCAL[1]}linked/rows.jsonl"), "evaluate.settings.local.follow_links=true"),
        (in_a_run, (*RUN_LOCAL[:1], f"{RUN_LOCAL[1]}kinds.jsonl"), "evaluate.settings.local.where.role=benign"),
        (in_an_evaluation, VLS, "on_missing_image=drop"),
        (in_an_evaluation, VLS, "view=text"),
        (in_an_evaluation, ("benchmark=local", "path=linked"), "follow_links=true"),
        (in_an_evaluation, ("benchmark=local", "path=kinds.jsonl"), "where.role=harmful"),
        (
            in_an_evaluation,
            ("benchmark=vlsbench,mini_vsil", "settings.vlsbench.path=vlsbench"),
            "settings.vlsbench.on_missing_image=drop",
        ),
        (
            in_align_leakage,
            ("benchmark=vlsbench", "settings.vlsbench.path=vlsbench", "against=mini_benign"),
            "settings.vlsbench.on_missing_image=drop",
        ),
        (in_align_data, ("source=local", "path=linked"), "follow_links=true"),
        (in_align_data, ("source=local", "path=no_role.jsonl"), "role=harmful"),
        (in_align_data, ("benchmark=local", "path=linked"), "follow_links=true"),
        (
            in_align_data,
            ("source=local", "path=kinds.jsonl", "benchmark=local", "settings.local.path=linked"),
            "settings.local.follow_links=true",
        ),
    ],
)  # fmt: skip
def test_the_option_that_an_error_names_works_as_typed(files, capsys, place, words, hint):
    with pytest.raises(UserError) as error:
        place(*words)
    said = str(error.value) or capsys.readouterr().err
    options = re.findall(r"[\w.]+=[\w.]+", said)
    assert hint in options, said
    place(*words, hint)


def test_leakage_has_no_views_and_names_none(files, capsys):
    with pytest.raises(UserError):
        in_align_leakage("benchmark=vlsbench", "path=vlsbench")
    said = capsys.readouterr().err
    assert "set on_missing_image=drop" in said
    assert "view=" not in said


@pytest.mark.parametrize(
    ("words", "hint", "value"),
    [
        (("data.own.source=vlguard", "data.own.twins=true", "data.own.path=set"), "data.own.subset=", "leak"),
        (("data.own.source=mssbench", "data.own.path=set"), "data.own.twins=true", ""),
        (("data.own.source=local",), "data.own.path=", "linked/rows.jsonl"),
        (("data.own.source=local", "data.own.path=tables"), "data.own.path=", "tables/one.jsonl"),
        (("data.own.source=local", "data.own.path=acme/none"), "data.own.revision=", "0" * 40),
    ],
)
def test_an_option_without_its_value_is_one_that_a_run_takes(files, words, hint, value):
    vlguard(files / "set")
    with pytest.raises(UserError) as error:
        in_a_run(*words)
    assert hint in str(error.value)
    own = compose_run(["recipe=mm_sft", "data.harmful=null", "data.benign=null", *words, f"{hint}{value}"]).config.data[
        "own"
    ]
    taken, wanted = str(getattr(own, hint.split(".")[-1].partition("=")[0])), value or hint.partition("=")[2]
    assert taken.lower() == wanted or taken == str(Path(wanted).absolute())  # a path that exists is stored whole


def test_what_is_wrong_with_a_subset_or_a_limit_is_said_in_the_words_of_its_place(files):
    for config, section in (
        (compose_run(["recipe=mm_sft", *RUN_VLS]).config.evaluate, "evaluate.settings.vlsbench."),
        (EvalConfig(benchmark=["vlsbench"], path="vlsbench"), ""),
        (EvalConfig(benchmark=["vlsbench", "mini_vsil"]), "settings.vlsbench."),
    ):
        for key, value in (("subset", "half"), ("limit", 0), ("limit_order", "last")):
            config.settings["vlsbench"] = settings_of(compose(EvalConfig, [*VLS, f"{key}={value}"]).config, "vlsbench")
            with pytest.raises(UserError, match=rf"benchmark vlsbench: {re.escape(section)}{key}={value}"):
                selections_of(config)


def test_what_a_run_may_drop_is_chosen_anew_in_an_evaluation_of_it(files):
    """on_overlap= is a setting of training; of a run that is finished there is nothing to drop."""
    write_jsonl(files / "train.jsonl", ROW | {"image": "there.png"})
    write_jsonl(files / "test.jsonl", ROW | {"image": "there.png"})
    words = ["recipe=mm_sft", "data.harmful=null", "data.benign=null", "data.own.path=train.jsonl"]
    config = compose_run([*words, "evaluate.benchmark=local", "evaluate.settings.local.path=test.jsonl"]).config
    data = training_data(config)
    with pytest.raises(UserError, match="set on_overlap=drop"):
        refuse_overlap_with_benchmarks(config.evaluate, data.records())
    config.on_overlap = "drop"
    with pytest.raises(UserError, match=r"data.own .*all its 1 rows"):
        without_overlap(config, data)
    with pytest.raises(UserError) as error:
        refuse_overlap_with_benchmarks(EvalConfig(benchmark=["local"], path="test.jsonl"), data.records())
    assert "on_overlap" not in str(error.value)
    assert "benchmark=" in str(error.value)


def test_a_place_is_forgotten_when_it_is_left():
    assert (option("path=x"), text_view()) == ("path=x", None)
    with options_of(Place("data.own", "data.own.view")):
        assert (option("path=x"), text_view()) == ("data.own.path=x", "data.own.view=text")
    assert (option("path=x"), text_view()) == ("path=x", None)


def test_a_group_is_typed_by_the_name_of_its_part(files):
    config = LeakageConfig(benchmark=["xstest_safe", "mini_vsil"])
    settings = settings_of(config, "xstest_safe")
    with pytest.raises(UserError, match=r"give settings.xstest_safe.path=<folder"):
        select_rows("xstest_safe", "text", settings, place=place_of(config, "xstest_safe"))
    written = compose(LeakageConfig, ["benchmark=xstest,mini_vsil", "settings.xstest_safe.path=x"]).config
    assert settings_of(written, "xstest_safe").path == "x"


def test_align_calibrate_takes_the_option_that_it_names(files, capsys):
    write_jsonl(files / "linked" / "rows.jsonl", ROW | {"image": "a.png", "label": "refusal", "role": "harmful"})
    words = ["calibrate", "path=linked/rows.jsonl", "judge=refusal_match", "output_dir=out"]
    assert main(words) == 2
    assert "follow_links=true" in capsys.readouterr().err
    assert main([*words, "follow_links=true"]) == 0
    assert json.loads((files / "out" / "calibration.refusal_match.json").read_text())["n"] == 1

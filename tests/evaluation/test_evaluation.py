"""An evaluation is written as it comes and goes on where it stopped."""

import json
import shutil
from collections.abc import Iterator

import pytest

from align.answering import local_model
from align.answering.generate import generate
from align.answering.local_model import LocalModel
from align.errors import UserError
from align.evaluation.evaluation import evaluate as evaluate_model
from align.models.loading import ModelSource
from align.settings import Answering, BenchmarkSettings, Evaluate, Judging


def evaluate(loaded, config, folder):
    model = LocalModel(ModelSource(loaded.settings), config.generation)
    model.identity = {"weights": loaded.weights}
    return evaluate_model(model, config, folder)


def settings(**more):
    defaults = {
        "benchmark": ["mini_vsil", "mini_twin"],
        "generation": Answering(max_new_tokens=6, batch_size=4),
        "settings": {name: BenchmarkSettings(limit=10) for name in ("mini_vsil", "mini_twin")},
    }
    return Evaluate(**(defaults | more))


@pytest.mark.slow_for_qwen2_vl
def test_files_and_counts(loaded, family_name, tmp_path):
    results = evaluate(loaded(family_name), settings(), tmp_path)
    assert set(results) == {"mini_vsil", "mini_twin"}
    assert (results["mini_vsil"]["n"], results["mini_twin"]["n"]) == (10, 10)
    for result in results.values():
        assert sum(result["counts"].values()) == result["n"]
    responses = [json.loads(line) for line in (tmp_path / "mini_vsil" / "responses.jsonl").open()]
    assert set(responses[0]) == {"id", "prompt_hash", "response", "finish_reason", "new_tokens", "seconds"}
    verdicts = [json.loads(line) for line in (tmp_path / "mini_vsil" / "verdicts.rule.jsonl").open()]
    wanted = {
        "id",
        "key",
        "response_hash",
        "verdict",
        "reason",
        "incoherent",
        "judge",
        "judge_version",
        "prompt_hash",
        "settings",
        "raw",
        "detail",
        "again",
        "prompt_tokens",
        "new_tokens",
    }
    assert set(verdicts[0]) == wanted
    assert [judge["judge"] for judge in results["mini_vsil"]["other_judges"]] == ["refusal_match"]


@pytest.mark.parametrize("answered", [0, 3, 9])
@pytest.mark.parametrize("cut", [False, True], ids=["between lines", "within a line"])
def test_a_killed_evaluation_goes_on_to_the_same_files(loaded, tmp_path, monkeypatch, answered, cut):
    it, wanted = loaded("llava"), settings(benchmark=["mini_vsil"])
    evaluate(it, wanted, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    file = tmp_path / "killed" / "mini_vsil" / "responses.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:answered]) + (lines[answered][:20] if cut else ""))
    (file.parent / "verdicts.rule.jsonl").write_text("")
    asked = []

    def counted(model, renderer, rows, *others) -> Iterator:
        asked.extend(row.id for row in rows)
        return generate(model, renderer, rows, *others)

    monkeypatch.setattr(local_model, "generate", counted)
    evaluate(it, wanted, tmp_path / "killed")
    assert len(asked) == 10 - answered

    def content(name):
        records = [json.loads(line) for line in (tmp_path / name / "mini_vsil" / "responses.jsonl").open()]
        verdicts = (tmp_path / name / "mini_vsil" / "verdicts.rule.jsonl").read_text()
        summary = (tmp_path / name / "mini_vsil" / "summary.rule.json").read_text()
        return [record | {"seconds": 0} for record in records], verdicts, summary

    assert content("killed") == content("whole")


def test_a_broken_line_in_the_middle_is_an_error_since_no_kill_makes_one(loaded, tmp_path):
    it, wanted = loaded("llava"), settings(benchmark=["mini_vsil"])
    evaluate(it, wanted, tmp_path)
    file = tmp_path / "mini_vsil" / "responses.jsonl"
    file.write_text("{broken\n" + file.read_text())
    with pytest.raises(UserError, match=r"responses.jsonl, line 1: not valid JSON"):
        evaluate(it, wanted, tmp_path)


def test_answers_to_other_questions_are_not_mixed_with_those_that_are_there(loaded, tmp_path):
    it = loaded("llava")
    evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)
    other = settings(benchmark=["mini_vsil"], generation=Answering(max_new_tokens=7))
    with pytest.raises(UserError, match='another evaluation: its generation is .*"max_new_tokens": 6.*expected .*7'):
        evaluate(it, other, tmp_path)


def test_another_selection_in_the_same_folder_is_named_with_the_one_that_is_there(loaded, tmp_path):
    it = loaded("llava")
    evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)
    other = {"mini_vsil": BenchmarkSettings(limit=4, limit_order="first")}
    with pytest.raises(UserError) as error:
        evaluate(it, settings(benchmark=["mini_vsil"], settings=other), tmp_path)
    assert "limit=10 (a stratified sample, seed 0)" in str(error.value)
    assert "4 rows (selection: limit=4 (the first rows))" in str(error.value)


def test_a_folder_of_an_earlier_version_goes_on_where_its_rows_are_the_same(loaded, tmp_path):
    it, same = loaded("llava"), settings(benchmark=["mini_vsil"])
    first = evaluate(it, same, tmp_path)
    file = tmp_path / "mini_vsil" / "settings.json"
    kept = json.loads(file.read_text())
    del kept["selection"]
    file.write_text(json.dumps(kept))
    assert evaluate(it, same, tmp_path) == first
    assert json.loads(file.read_text())["selection"] == "limit=10 (a stratified sample, seed 0)"


def test_another_batch_size_goes_on_with_what_is_there(loaded, tmp_path):
    it = loaded("llava")
    first = evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)
    second = evaluate(
        it, settings(benchmark=["mini_vsil"], generation=Answering(max_new_tokens=6, batch_size=1)), tmp_path
    )
    assert first == second


def test_another_main_judge_makes_the_former_one_an_other_judge(loaded, tmp_path):
    it = loaded("llava")
    evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)
    evaluate(it, settings(benchmark=["mini_vsil"], judge=Judging(name=["refusal_match"])), tmp_path)
    main = {file.name: json.loads(file.read_text())["main"] for file in (tmp_path / "mini_vsil").glob("summary.*.json")}
    assert main == {"summary.rule.json": False, "summary.refusal_match.json": True}


def test_answers_of_other_weights_are_not_passed_off_as_this_models(loaded, tmp_path):
    it = loaded("llava")
    evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)
    it.weights = "another"
    with pytest.raises(UserError, match="another evaluation: its weights is"):
        evaluate(it, settings(benchmark=["mini_vsil"]), tmp_path)


def test_a_selection_is_told_with_the_numbers(loaded, tmp_path):
    (result,) = evaluate(loaded("llava"), settings(benchmark=["mini_vsil"]), tmp_path).values()
    assert result["facts"] == ["mini_vsil: only limit=10 (a stratified sample, seed 0)"]


def test_nothing_to_evaluate_is_an_error(loaded, tmp_path):
    with pytest.raises(UserError, match="benchmark= is missing"):
        evaluate(loaded("llava"), Evaluate(), tmp_path)

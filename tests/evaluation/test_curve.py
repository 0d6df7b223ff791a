"""The curve of a run: its kept weights evaluated as its final ones are, in order, resumable, and in
no table of runs.
"""

import json
import shutil

import pytest

from align.cli import main
from align.commands.compare import _arm
from align.config.compose import compose_eval, compose_run
from align.errors import UserError
from align.report.curve import print_curve
from align.report.find_runs import collect
from align.report.run_results import row_of
from align.training.run import train
from tests.support.small_run import arguments

EVALUATION = ["benchmark=mini_vsil,mini_benign", "limit=4", "generation.max_new_tokens=4"]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run with two points beside its final weights, not evaluated."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return train(compose_run(arguments(tiny("llava"), folder, "evaluate.every_steps=2")))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained.path, tmp_path / "run")
    return type(trained)(tmp_path / "run")


def curve(run):
    stored = json.loads(run.curve_file.read_text())
    assert stored["schema"] == 1
    return {point["step"]: point["results"] for point in stored["points"]}


def answers(folder):
    return [json.loads(line)["response"] for line in (folder / "mini_vsil" / "responses.jsonl").open()]


def test_every_point_is_evaluated_as_the_final_checkpoint_is(run, tmp_path, capsys):
    assert main(["eval", f"run={run.path}", *EVALUATION, "judge=rule", "view=image,blank"]) == 0
    found, said = curve(run), capsys.readouterr().out
    assert list(found) == [2, 4, 6]
    assert all(
        set(results) == {f"{name}{view}" for name in ("mini_vsil", "mini_benign") for view in ("", ".blank")}
        for results in found.values()
    )
    assert {name: result["counts"] for name, result in found[6].items()} == {
        name: result["counts"] for name, result in row_of(run)["results"].items()
    }
    files = {path.relative_to(run.evaluation) for path in run.evaluation.rglob("*") if path.is_file()}
    for step, point in run.curve_points().items():
        assert {path.relative_to(point.evaluation) for path in point.evaluation.rglob("*") if path.is_file()} == files
        summary = json.loads((point.evaluation / "mini_vsil" / "summary.rule.json").read_text())
        assert summary["counts"] == found[step]["mini_vsil"]["counts"]
    # The final checkpoint first, then the points in order.
    heads = ["mini_vsil: 4 done", "Evaluation of", "step 2 mini_vsil: 4 done", "step 4 mini_vsil: 4 done", "Curve: "]
    assert sorted(heads, key=said.index) == heads
    table = said[said.index("Curve: ") :]
    assert [step for step in ("2", "4", "6") if f"│    {step} │" in table] == ["2", "4", "6"]
    assert "mini_benign" in table
    assert "n=4" in table
    assert "blank" not in table
    # One point as anybody's checkpoint: the same weights, so the same answers.
    alone = tmp_path / "alone"
    four = run.curve_points()[4]
    assert main(["eval", f"checkpoint={four.weights}", f"output_dir={alone}", *EVALUATION]) == 0
    assert answers(alone / "evaluation") == answers(four.evaluation)
    assert answers(run.evaluation) != answers(run.curve_points()[2].evaluation)


def test_points_are_no_runs(run, capsys):
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    rows, notes = collect(run.path.parent)
    assert [(it.row["name"], it.row["steps"]) for it in rows] == [("mm_sft", 6)]
    assert notes == []
    capsys.readouterr()
    assert main(["table", f"runs={run.path.parent}", "format=csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # a heading and two sets of one run, one of them under two judges


@pytest.mark.long
@pytest.mark.slow
def test_a_point_that_fails_leaves_what_was_found_and_the_same_command_goes_on(run, capsys):
    file = run.curve_points()[4].weights / "adapter_model.safetensors"
    file.rename(file.with_name("away"))
    command = ["eval", f"run={run.path}", *EVALUATION]
    assert main(command) == 2
    assert str(run.curve_points()[4].weights) in capsys.readouterr().err
    assert list(curve(run)) == [2, 6]
    responses = run.curve_points()[2].evaluation / "mini_vsil" / "responses.jsonl"
    first = responses.read_text()
    file.with_name("away").rename(file)
    assert main(command) == 0
    assert list(curve(run)) == [2, 4, 6]
    assert responses.read_text() == first  # with the seconds that each took: nothing was asked twice


def test_the_final_checkpoint_alone_is_evaluated_on_request(run, capsys):
    assert main(["eval", f"run={run.path}", *EVALUATION, "curve=false"]) == 0
    assert not run.curve_file.exists()
    assert not any(point.evaluation.exists() for point in run.curve_points().values())
    assert "Curve" not in capsys.readouterr().out


@pytest.mark.slow
def test_only_the_sets_of_the_command_are_in_the_curve(run):
    for benchmark in ("mini_vsil", "mini_ability"):
        assert (
            main(["eval", f"run={run.path}", f"benchmark={benchmark}", "limit=3", "generation.max_new_tokens=4"]) == 0
        )
    assert [set(results) for results in curve(run).values()] == [{"mini_ability"}] * 3


@pytest.mark.slow
def test_answers_without_a_judge_leave_the_curve_as_it_was(run, capsys):
    assert main(["eval", f"run={run.path}", *EVALUATION, "judge=none"]) == 0
    assert not run.curve_file.exists()
    assert "Curve" not in capsys.readouterr().out
    assert len(answers(run.curve_points()[4].evaluation)) == 4
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    before = run.curve_file.read_bytes()
    assert main(["eval", f"run={run.path}", *EVALUATION, "judge=none"]) == 0
    assert run.curve_file.read_bytes() == before


def test_a_run_without_points_has_no_curve_and_says_which_were_asked_for_too_late(run, capsys):
    shutil.rmtree(run.curve)
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    said = capsys.readouterr().out
    assert "evaluate.every_steps=2: " in said
    assert "did not keep the weights of 2 steps (2, 4)" in said
    assert not run.curve_file.exists()


@pytest.mark.slow_for_qwen2_vl
def test_full_fine_tuning_has_a_curve_of_models(tiny, family_name, tmp_path):
    full = ["lora=null", "train.learning_rate=1e-4", "train.max_steps=2", "evaluate.every_steps=1"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *full)))
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    assert list(curve(run)) == [1, 2]


@pytest.mark.slow
def test_the_arms_of_a_comparison_have_their_curves(tiny, tmp_path):
    evaluation = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 3}}, generation: {max_new_tokens: 4}}"
    command = arguments(tiny("llava"), tmp_path / "run", evaluation, "evaluate.every_steps=1", "train.max_steps=2")
    reported = []
    run = _arm(compose_run(command), lambda name, share: reported.append(name))
    assert list(curve(run)) == [1, 2]
    assert any(name.endswith("step 1 mini_vsil") for name in reported), reported


def test_settings_without_effect_are_refused(run):
    with pytest.raises(UserError, match="^curve= .*no effect.*run="):
        compose_eval(["model=mini_llava", "curve=false"])
    with pytest.raises(UserError, match=r"^every_steps= .*no effect.*evaluate\.every_steps="):
        compose_eval([f"run={run.path}", "every_steps=3"])
    assert compose_eval([f"run={run.path}"]).config.every_steps == 2


def test_the_table_shows_what_is_withheld_and_of_how_many_a_rate_is(capsys):
    def result(rate, **counts):
        return {"kind": "vsil", "judge": "rule", "n": 40, "rate": rate, "counts": counts}

    some = result(None, refusal=20, invalid=20)
    print_curve({100: {"vlsbench": result(0.25, refusal=10, unsafe=30)}, 200: {"vlsbench": some}})
    lines = [line.strip("│ ").replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line[:1] in (["100"], ["200"]) or line[:1] == ["n=40"] or "of" in line[1:2]] == [
        ["100", "25.0"],
        ["n=40"],
        ["200", "withheld"],
        ["n=20", "of", "40"],
    ]

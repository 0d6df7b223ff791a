"""One run, as a user starts it: trained, evaluated, found finished, refused."""

import json
import re
import runpy

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.models.weights import Base
from align.report.find_runs import collect
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.launch import ROOT, align, call, train_command
from tests.support.small_run import arguments

EVALUATION = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 4}}, generation: {max_new_tokens: 4}}"


@pytest.mark.slow
def test_a_run_is_trained_and_evaluated_by_one_command(tiny, tmp_path):
    first = call(train_command(*arguments(tiny("llava"), "run", EVALUATION)), tmp_path)
    assert first.returncode == 0, first.stderr
    run = RunFolder(tmp_path / "run")
    manifest = run.manifest()
    assert (manifest["status"], manifest["steps"], manifest["world_size"]) == ("finished", 6, 1)
    assert manifest["data"]["parts"] == {"harmful": 24, "benign": 24}
    assert (manifest["data"]["rows"], manifest["data"]["with_image"]) == (48, 24)
    assert manifest["parameters"]["vision_tower"]["trainable"] == 0
    assert manifest["trainable_parameters"] == manifest["parameters"]["language_model"]["trainable"] > 0
    assert {"torch", "trl", "peft", "transformers"} <= set(manifest["versions"])
    assert manifest["peak_memory_mib"] > 0
    assert (run.weights / "adapter_model.safetensors").is_file()
    assert [json.loads(line)["step"] for line in (run.path / "log.jsonl").open()][:6] == [1, 2, 3, 4, 5, 6]
    summary = json.loads((run.evaluation / "mini_vsil" / "summary.rule.json").read_text())
    assert summary["n"] == 4
    assert "mini_vsil" in first.stdout
    steps, rows = ([json.loads(line) for line in file.open()] for file in (run.steps_file, run.rows_file))
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    taken = [row for step in steps for row in step["rows"]]
    assert sorted(taken) == sorted(row["id"] for row in rows)  # 6 steps of 8 are one epoch of 48
    assert manifest["supervised_tokens"] == sum(step["supervised_tokens"] for step in steps)


@pytest.mark.slow_for_qwen2_vl
def test_a_finished_run_is_found_and_evaluated_further(tiny, family_name, tmp_path):
    command = arguments(tiny(family_name), tmp_path / "run")
    run = train(compose_run(command))
    before = run.manifest_file.read_bytes()
    assert train(compose_run(command)) == run
    assert run.manifest_file.read_bytes() == before
    for benchmark in ("mini_vsil", "mini_ability"):
        assert (
            main(["eval", f"run={run.path}", f"benchmark={benchmark}", "limit=3", "generation.max_new_tokens=4"]) == 0
        )
    rows, notes = collect(tmp_path)
    assert set(rows[0].row["results"]) == {"mini_vsil", "mini_ability"}
    assert notes == []


def test_a_checkpoint_is_evaluated_without_a_run_of_ours(tiny, tmp_path):
    run = train(compose_run(arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1")))
    evaluation = ["benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]
    assert main(["eval", f"checkpoint={run.weights}", f"output_dir={tmp_path / 'a'}", *evaluation]) == 0
    assert main(["eval", f"model={tiny('llava')}", f"output_dir={tmp_path / 'b'}", *evaluation]) == 0
    names = {it.row["name"] for it in collect(tmp_path)[0]}
    assert names == {"mm_sft", "checkpoint", "vanilla"}
    assert (
        main(["eval", f"model={tiny('qwen2_vl')}", f"output_dir={tmp_path / 'b'}", *evaluation]) == 2
    )  # another model's folder


@pytest.mark.slow_for_qwen2_vl
def test_full_fine_tuning_saves_a_model_that_loads(tiny, family_name, tmp_path):
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", "lora=null", "train.max_steps=1")))
    assert (run.weights / "model.safetensors").is_file()
    assert main(["eval", f"run={run.path}", "benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]) == 0


def test_dry_run_shows_origins_and_the_supervised_span_and_trains_nothing(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # so that what the command sets is taken back
    assert main(["train", *arguments(tiny("llava"), tmp_path / "run", "dry_run=true")]) == 0
    shown = capsys.readouterr().out  # one process of a CPU needs no launcher: what one prints would not be found here
    assert "# argument 'train.max_steps=6'" in shown
    assert "# recipes/mm_sft.yaml" in shown
    assert "Data: harmful 24 rows, benign 24 rows" in shown
    assert "vision_tower 0 of" in shown
    assert "Steps: 6, each 8 rows = 1 processes x 8 rows x 1 accumulated" in shown
    assert "dataloader_num_workers 0 (this machine)" in shown
    assert "<image> x 16" in shown
    assert "[[sorry i can not help with that because it is dangerous </s>]]" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_show_a_dry_run_once(tiny, tmp_path):
    shown = call(align("train", *arguments(tiny("llava"), "run", "dry_run=true", "num_processes=2")), tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("Steps: 6, each 8 rows = 2 processes x 4 rows x 1 accumulated") == 1


def test_a_mistake_is_one_line_that_names_argument_and_remedy(monkeypatch, capsys):
    script = str(ROOT / "align" / "train.py")
    monkeypatch.setattr("sys.argv", [script, "recipe=mm_sft", "trian.max_steps=3"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(script, run_name="__main__")  # as `accelerate launch` does
    said = "error: argument 'trian.max_steps=': there is no setting trian (did you mean 'train'?)\n"
    assert capsys.readouterr().err == said


def test_a_finished_run_is_not_evaluated_on_what_it_was_trained_on(tiny, tmp_path, capsys):
    from align.miniature.rows import evaluation_rows

    (tmp_path / "leak.png").write_bytes(evaluation_rows("vsil", 1)[0].images[0].bytes)
    (tmp_path / "leak.jsonl").write_text(
        json.dumps({"prompt": "x", "image": "leak.png", "response": "y", "role": "benign"})
    )
    more = ["data.benign={source: local, path: " + str(tmp_path / "leak.jsonl") + "}", "train.max_steps=1"]
    command = arguments(tiny("llava"), tmp_path / "run", *more)
    train(compose_run(command))
    with pytest.raises(UserError, match="1 training rows have the image of a row of mini_vsil"):
        train(compose_run([*command, "evaluate.benchmark=mini_vsil"]))
    assert main(["eval", f"run={tmp_path / 'run'}", "benchmark=mini_vsil"]) == 2
    assert "1 training rows have the image of a row of mini_vsil" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_false_starts_anew(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=4")
    run = train(compose_run(command))
    run.record(status="running", seconds=1000.0)
    again = train(compose_run([*command, "resume=false"]))
    assert again.manifest()["seconds"] < 1000
    assert next(json.loads(line)["step"] for line in (run.path / "log.jsonl").open()) == 1


def test_a_folder_of_another_run_is_not_written_into(tiny, tmp_path):
    run = RunFolder(tmp_path / "run")
    config = compose_run(arguments(tiny("llava"), run.path)).config
    base, replaced = Base("base", None, "weights"), Base("base", None, "others")
    run.begin(config, {"fingerprint": "a"}, base, "r")
    with pytest.raises(UserError, match='data.fingerprint is "a".* "b".* output_dir='):
        run.begin(config, {"fingerprint": "b"}, base, "r")
    with pytest.raises(UserError, match='base_weights is "weights".* "others"'):
        run.begin(config, {"fingerprint": "a"}, replaced, "r")
    config.seed = 9
    with pytest.raises(UserError, match="its seed is 0, .* 9"):
        run.begin(config, {"fingerprint": "a"}, base, "r")


def test_training_on_an_evaluation_row_is_refused_or_such_rows_are_left_out(tiny, tmp_path):
    from align.miniature.rows import evaluation_rows

    row = evaluation_rows("vsil", 1)[0]
    (tmp_path / "leak.png").write_bytes(row.images[0].bytes)
    leak, own = ({"prompt": name, "response": "y", "role": "benign"} for name in "xz")
    (tmp_path / "leak.jsonl").write_text(json.dumps(leak | {"image": "leak.png"}) + "\n" + json.dumps(own))
    more = ["data.benign={source: local, path: " + str(tmp_path / "leak.jsonl") + "}", "evaluate.benchmark=mini_vsil"]
    command = arguments(tiny("llava"), tmp_path / "run", *more, "train.max_steps=1")
    with pytest.raises(
        UserError, match=r"1 training rows have the image of a row of mini_vsil .*benign/leak-1 = vsil-test-0"
    ):
        train(compose_run(command))
    run = train(compose_run([*command, "on_overlap=drop"]))
    data = run.manifest()["data"]
    assert data["parts"] == {"harmful": 24, "benign": 1}
    fact = r"1 rows .* mini_vsil \(on_overlap: drop\), first benign/leak-1"
    assert any(re.match(fact, one) for one in data["facts"])
    assert "benign/leak-1" not in run.rows_file.read_text()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["view=text"], "view=text hides the only evidence .* 14 training rows, .*allow_label_conflict=true"),
        (["data.harmful=null", "data.benign=null"], "recipe mm_sft: .*data.*suite="),
        (["data.benign.source=nowhere"], "data.benign.source=nowhere: unknown"),
        (["data.benign.source=miniature", "data.benign.subset=x"], "subset=x: expected one of text_harmful"),
        (["lora.target_modules=typo"], r"lora.target_modules: .*'typo'.* language_model"),
        (["num_processes=3"], "num_processes=3, but 1 processes are running"),
        (["method=ppoo"], "method=ppoo: unknown"),
        (["track=controled"], "argument 'track=controled': track=controled: expected paper or controlled"),
    ],
)
def test_what_cannot_be_trained_says_why(tiny, tmp_path, more, expected):
    with pytest.raises(UserError, match=expected):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


def test_a_finished_run_is_not_passed_off_as_another(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1")
    train(compose_run(command))
    with pytest.raises(UserError, match="its seed is 0, .*7"):
        train(compose_run([*command, "seed=7"]))
    assert main(["eval", f"model={tiny('llava')}", f"output_dir={tmp_path / 'run'}", "benchmark=mini_vsil"]) == 2


def test_the_data_behind_the_same_path_may_not_change_under_a_run(tiny, tmp_path):
    file = tmp_path / "rows.jsonl"
    data = ["data.harmful=null", "data.benign={source: local, path: " + str(file) + ", role: benign}", "view=text"]
    command = arguments(tiny("llava"), tmp_path / "run", *data, "train.max_steps=1")
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "response": "this is a cup"}) + "\n" for i in range(8)))
    train(compose_run(command))
    file.write_text(file.read_text().replace("cup", "key"))
    with pytest.raises(UserError, match="its data.fingerprint is"):
        train(compose_run(command))


@pytest.mark.slow
def test_what_a_finished_run_is_evaluated_on_may_change(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1")
    run = train(compose_run([*command, EVALUATION]))
    train(compose_run([*command, EVALUATION, "evaluate.view=text"]))
    assert main(["eval", f"run={run.path}"]) == 0
    assert (run.evaluation / "mini_vsil.text" / "summary.rule.json").is_file()
    assert main(["eval", f"run={run.path}", "view=image", "limit=2"]) == 0
    assert json.loads((run.evaluation / "mini_vsil" / "settings.json").read_text())["generation"]["max_new_tokens"] == 4


def test_rows_without_answer_are_named_before_anything_is_loaded(tiny, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "p"}) + "\n")
    more = ["data.harmful=null", "data.benign={source: local, path: " + str(file) + ", role: benign}", "view=text"]
    with pytest.raises(
        UserError, match="1 of 1 training rows .*\n.* row benign/rows-1 .*`response`.*data.benign.response=generate"
    ):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


def test_an_image_run_whose_rows_have_no_image_is_refused(tiny, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "p", "response": "r", "colour": "red"}) + "\n")
    more = ["data.harmful=null", "data.benign={source: local, path: " + str(file) + ", role: benign}"]
    with pytest.raises(UserError, match="none of the 1 training rows has an image; check the column `image`"):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


def test_text_view_of_image_rows_is_allowed_on_request_and_recorded(tiny, tmp_path):
    run = train(
        compose_run(
            arguments(tiny("llava"), tmp_path / "run", "view=text", "allow_label_conflict=true", "train.max_steps=1")
        )
    )
    assert "hides the only evidence" in run.manifest()["data"]["facts"][0]

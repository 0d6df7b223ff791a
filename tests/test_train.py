"""One run, as a user starts it: trained, evaluated, found finished, killed and resumed."""

import json
import os
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file

from align.cli import main
from align.config import compose_run
from align.errors import UserError
from align.report.collect import collect
from align.run_folder import RunFolder
from align.train import train
from tests.support.launch import ENVIRONMENT, call, train_command


def arguments(model, out, *more):
    """A small run on an untrained tiny model with the miniature's rows."""
    data = [
        "data.harmful={source: miniature, subset: image_harmful, rows: 24}",
        "data.benign={source: miniature, subset: text_benign, rows: 24}",
    ]
    train = [
        "train.max_steps=6",
        "train.learning_rate=1e-2",
        "global_batch_size=8",
        "train.save_steps=2",
        "train.logging_steps=1",
    ]
    return ["recipe=mm_sft", f"model={model}", f"output_dir={out}", *data, *train, "model.dtype=float32", *more]


EVALUATION = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 4}}, generation: {max_new_tokens: 4}}"


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


def test_each_step_counts_its_supervised_tokens(tiny, family_name, tmp_path):
    data = ["data.harmful.subset=text_harmful", "data.benign=null", "view=text", "global_batch_size=8"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *data, "train.max_steps=2")))
    steps = [json.loads(line) for line in run.steps_file.open()]
    assert [step["supervised_tokens"] for step in steps] == [
        8 * 12,
        8 * 12,
    ]  # "sorry ... dangerous": 11 words, and the end


def test_accumulation_changes_neither_order_nor_losses(tiny, family_name, tmp_path):
    found = []
    for size in (8, 2):  # 8 rows at once, or four times 2; 46 rows, so the last step of the epoch is filled up
        more = [
            f"train.per_device_train_batch_size={size}",
            "data.benign.rows=22",
            "train.max_steps=8",
            "train.learning_rate=1e-3",
        ]
        run = train(compose_run(arguments(tiny(family_name), tmp_path / str(size), *more)))
        logs = [json.loads(line) for line in (run.path / "log.jsonl").open()]
        found.append((run.steps_file.read_text(), [entry["loss"] for entry in logs if "loss" in entry]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)
    assert len(found[0][1]) == 8


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
    assert set(rows[0]["results"]) == {"mini_vsil", "mini_ability"}
    assert notes == []


def test_a_checkpoint_is_evaluated_without_a_run_of_ours(tiny, tmp_path):
    run = train(compose_run(arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1")))
    evaluation = ["benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]
    assert main(["eval", f"checkpoint={run.weights}", f"output_dir={tmp_path / 'a'}", *evaluation]) == 0
    assert main(["eval", f"model={tiny('llava')}", f"output_dir={tmp_path / 'b'}", *evaluation]) == 0
    names = {row["name"] for row in collect(tmp_path)[0]}
    assert names == {"mm_sft", "checkpoint", "vanilla"}
    assert (
        main(["eval", f"model={tiny('qwen2_vl')}", f"output_dir={tmp_path / 'b'}", *evaluation]) == 2
    )  # another model's folder


def test_full_fine_tuning_saves_a_model_that_loads(tiny, family_name, tmp_path):
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", "lora=null", "train.max_steps=1")))
    assert (run.weights / "model.safetensors").is_file()
    assert main(["eval", f"run={run.path}", "benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]) == 0


def test_dry_run_shows_origins_and_the_supervised_span_and_trains_nothing(tiny, tmp_path):
    shown = call(train_command(*arguments(tiny("llava"), "run", "dry_run=true")), tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "# argument 'train.max_steps=6'" in shown.stdout
    assert "# recipes/mm_sft.yaml" in shown.stdout
    assert "Data: harmful 24 rows, benign 24 rows" in shown.stdout
    assert "vision_tower 0 of" in shown.stdout
    assert "Steps: 6, each 8 rows = 1 processes x 8 rows x 1 accumulated" in shown.stdout
    assert "<image> x 16" in shown.stdout
    assert "[[ sorry i can not help with that because it is dangerous </s> ]]" in shown.stdout
    assert not (tmp_path / "run").exists()


def test_a_mistake_is_one_line_that_names_argument_and_remedy(tmp_path):
    failed = call(train_command("recipe=mm_sft", "trian.max_steps=3"), tmp_path)
    assert failed.returncode != 0
    assert (
        "error: argument 'trian.max_steps=3': Key 'trian' not in 'RunConfig'. Did you mean one of: 'train', 'track'?"
        in failed.stderr
    )


def kill_when(command, folder, run, pattern):
    """Start a command and kill it with all its processes once a checkpoint of that name is whole."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(run.checkpoints.glob(f"{pattern}/trainer_state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not run.finished()


@pytest.mark.slow
def test_killed_and_resumed_is_undisturbed_bit_for_bit(tiny, tmp_path):
    more = ["train.max_steps=40", "train.save_steps=5", "train.save_total_limit=2"]
    assert call(train_command(*arguments(tiny("llava"), "whole", *more)), tmp_path, 300).returncode == 0
    command = train_command(*arguments(tiny("llava"), "killed", *more))
    kill_when(command, tmp_path, RunFolder(tmp_path / "killed"), "checkpoint-1*")
    resumed = call(command, tmp_path, 300)
    assert resumed.returncode == 0, resumed.stderr
    whole, killed = (
        load_file(tmp_path / name / "checkpoint" / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert all((whole[key] == killed[key]).all() for key in whole)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("whole", "killed")]
    assert RunFolder(tmp_path / "killed").manifest()["seconds"] > 1
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 40
    whole_steps, killed_steps = (RunFolder(tmp_path / name).steps_file.read_text() for name in ("whole", "killed"))
    assert whole_steps == killed_steps


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_killed_in_their_second_epoch_take_the_same_rows(tiny, tmp_path):
    more = [
        "train.max_steps=20",
        "train.save_steps=1",
        "train.learning_rate=1e-3",
        "data.benign.rows=22",
    ]  # 6 steps an epoch
    assert call(train_command(*arguments(tiny("llava"), "one", *more)), tmp_path, 300).returncode == 0
    command = train_command(*arguments(tiny("llava"), "two", *more), processes=2)
    kill_when(command, tmp_path, RunFolder(tmp_path / "two"), "checkpoint-[89]")
    resumed = call(command, tmp_path, 300)
    assert resumed.returncode == 0, resumed.stderr
    one, two = (RunFolder(tmp_path / name).steps_file.read_text() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 20


def test_steps_that_are_no_longer_on_record_are_not_made_up(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=4")
    run = train(compose_run(command))
    run.record(status="running")
    run.steps_file.write_text("")
    with pytest.raises(UserError, match="steps.jsonl has 0 of the 4 steps before the checkpoint; .* resume=false"):
        train(compose_run(command))


def test_a_finished_run_is_not_evaluated_on_what_it_was_trained_on(tiny, tmp_path, capsys):
    from align.miniature.rows import evaluation_rows

    (tmp_path / "leak.png").write_bytes(evaluation_rows("vsil", 1)[0].images[0].bytes)
    (tmp_path / "leak.jsonl").write_text(
        json.dumps({"prompt": "x", "image": "leak.png", "response": "y", "role": "benign"})
    )
    more = ["data.benign={source: local, path: " + str(tmp_path / "leak.jsonl") + "}", "train.max_steps=1"]
    command = arguments(tiny("llava"), tmp_path / "run", *more)
    train(compose_run(command))
    with pytest.raises(UserError, match="1 training rows have the picture of a row of mini_vsil"):
        train(compose_run([*command, "evaluate.benchmark=mini_vsil"]))
    assert main(["eval", f"run={tmp_path / 'run'}", "benchmark=mini_vsil"]) == 2
    assert "1 training rows have the picture of a row of mini_vsil" in capsys.readouterr().err


def test_resume_false_starts_anew(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=4")
    run = train(compose_run(command))
    run.record(status="running", seconds=1000.0)
    again = train(compose_run([*command, "resume=false"]))
    assert again.manifest()["seconds"] < 1000
    assert next(json.loads(line)["step"] for line in (run.path / "log.jsonl").open()) == 1


def test_a_half_written_checkpoint_is_removed_and_the_one_before_it_used(tmp_path, capsys):
    run = RunFolder(tmp_path)
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_s'), (15, None)):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-5"
    assert "checkpoint-15 was left half written; removed" in capsys.readouterr().out


def test_a_folder_of_another_run_is_not_written_into(tiny, tmp_path):
    run = RunFolder(tmp_path / "run")
    config = compose_run(arguments(tiny("llava"), run.path)).config
    run.begin(config, {"fingerprint": "a"}, "base")
    with pytest.raises(UserError, match="holds another run: its data is .* give another output_dir="):
        run.begin(config, {"fingerprint": "b"}, "base")
    with pytest.raises(UserError, match='holds another run: its base is "base", this one\'s "other"'):
        run.begin(config, {"fingerprint": "a"}, "other")
    config.seed = 9
    with pytest.raises(UserError, match="holds another run: its fingerprint is"):
        run.begin(config, {"fingerprint": "a"}, "base")


def test_training_on_an_evaluation_row_is_refused(tiny, tmp_path):
    from align.miniature.rows import evaluation_rows

    row = evaluation_rows("vsil", 1)[0]
    (tmp_path / "leak.png").write_bytes(row.images[0].bytes)
    (tmp_path / "leak.jsonl").write_text(
        json.dumps({"prompt": "x", "image": "leak.png", "response": "y", "role": "benign"})
    )
    more = ["data.benign={source: local, path: " + str(tmp_path / "leak.jsonl") + "}", "evaluate.benchmark=mini_vsil"]
    with pytest.raises(
        UserError, match=r"1 training rows have the picture of a row of mini_vsil .*benign/leak-1 = vsil-test-0"
    ):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["view=text"], "view=text hides the only evidence for the answer of .* training rows"),
        (["data.harmful=null", "data.benign=null"], "no data; name a suite"),
        (["data.benign.source=nowhere"], "data.benign.source=nowhere: unknown"),
        (["data.benign.source=miniature", "data.benign.subset=x"], "subset=x: expected one of text_harmful"),
        (["lora.target_modules=typo"], "match nothing in language_model"),
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
    with pytest.raises(UserError, match="holds another run: its fingerprint"):
        train(compose_run([*command, "seed=7"]))
    assert main(["eval", f"model={tiny('llava')}", f"output_dir={tmp_path / 'run'}", "benchmark=mini_vsil"]) == 2


def test_the_data_behind_the_same_path_may_not_change_under_a_run(tiny, tmp_path):
    file = tmp_path / "rows.jsonl"
    data = ["data.harmful=null", "data.benign={source: local, path: " + str(file) + ", role: benign}", "view=text"]
    command = arguments(tiny("llava"), tmp_path / "run", *data, "train.max_steps=1")
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "response": "this is a cup"}) + "\n" for i in range(8)))
    train(compose_run(command))
    file.write_text(file.read_text().replace("cup", "key"))
    with pytest.raises(UserError, match="holds another run: its data"):
        train(compose_run(command))


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
    with pytest.raises(UserError, match="1 rows have no `response`, which supervised fine-tuning needs: benign/rows-1"):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


def test_an_image_run_whose_rows_have_no_image_is_refused(tiny, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "p", "response": "r", "img": "x.png"}) + "\n")
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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_take_the_same_steps_as_one(tiny, family_name, tmp_path):
    """Mixed rows: with four rows a process, some batches have no image on one of the two."""
    more = [
        "train.learning_rate=1e-3",
        "train.max_steps=8",
        "data.benign.rows=22",
    ]  # 46 rows: the sixth step is filled up
    assert call(train_command(*arguments(tiny(family_name), "one", *more)), tmp_path, 200).returncode == 0
    command = arguments(tiny(family_name), "two", *more, "num_processes=2")
    two = call(train_command(*command, processes=2), tmp_path, 200)
    assert two.returncode == 0, two.stderr
    manifest = RunFolder(tmp_path / "two").manifest()
    assert (manifest["world_size"], manifest["distributed_type"]) == (2, "MULTI_CPU")
    assert len({RunFolder(tmp_path / name).steps_file.read_text() for name in ("one", "two")}) == 1
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "two")]
    losses = [[float(entry["loss"]) for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    adapters = [load_file(tmp_path / name / "checkpoint" / "adapter_model.safetensors") for name in ("one", "two")]
    assert all((adapters[0][key] - adapters[1][key]).abs().max() < 1e-4 for key in adapters[0])


@pytest.mark.slow
def test_more_processes_than_the_run_wants_are_an_error(tiny, tmp_path):
    failed = call(train_command(*arguments(tiny("llava"), "run", "num_processes=1"), processes=2), tmp_path)
    assert failed.returncode != 0
    assert (
        "num_processes=1, but 2 processes are running; launch with `accelerate launch --num_processes 1"
        in failed.stderr
    )

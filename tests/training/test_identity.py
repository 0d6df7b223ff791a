"""What a run is: base weights by their content, paths that are found from anywhere, one process
group at a time, whole checkpoints.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.report.find_runs import collect
from align.run_folder import RunFolder
from align.run_lock import alone, wait_until_free
from align.training.run import train
from tests.support.launch import ROOT, train_command
from tests.support.small_run import arguments

EVALUATION = ["benchmark=mini_vsil", "limit=2", "generation.max_new_tokens=2"]


def replace_weights(folder):
    """Other weights behind the same path."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file(
        {name: tensor + 1e-3 * torch.ones_like(tensor) for name, tensor in weights.items()}, file, {"format": "pt"}
    )


@pytest.fixture
def base(tiny, tmp_path):
    """A copy of the tiny LLaVA that a test may change."""
    return shutil.copytree(tiny("llava"), tmp_path / "base")


def test_a_base_that_is_replaced_behind_its_path_is_refused_by_resume_evaluation_and_merge(base, tmp_path, capsys):
    command = arguments(base, tmp_path / "run", "train.max_steps=2", "train.save_steps=1", "evaluate.benchmark=[]")
    run = train(compose_run(command))
    recorded = run.manifest()["base_weights"]
    replace_weights(base)
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 2
    assert recorded in capsys.readouterr().err
    assert main(["eval", f"checkpoint={run.weights}", f"output_dir={tmp_path / 'other'}", *EVALUATION]) == 2
    assert recorded in capsys.readouterr().err
    assert main(["merge", f"run={run.path}", f"output_dir={tmp_path / 'merged'}"]) == 2
    assert recorded in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    run.record(status="running")
    with pytest.raises(UserError, match=f'base_weights is "{recorded}"'):
        train(compose_run(command))


def test_a_base_whose_files_were_copied_anew_is_the_same(base, tmp_path):
    command = arguments(base, tmp_path / "run", "train.max_steps=1", "evaluate.benchmark=[]")
    run = train(compose_run(command))
    shutil.copy(base / "model.safetensors", tmp_path / "copy")
    shutil.move(tmp_path / "copy", base / "model.safetensors")
    run.record(status="running")
    assert train(compose_run(command)).finished()


def test_one_changed_tensor_of_a_large_file_changes_the_fingerprint(tmp_path, monkeypatch):
    from align.models import weights

    monkeypatch.setattr(weights, "WHOLE", 1000)
    tensors = {f"layer.{i}": torch.full((40, 40), float(i)) for i in range(50)}
    save_file(tensors, tmp_path / "model.safetensors")
    before = weights.fingerprint_of([str(tmp_path)])
    assert weights.fingerprint_of([str(tmp_path)]) == before
    save_file(tensors | {"layer.31": tensors["layer.31"] * 1.001}, tmp_path / "model.safetensors")
    assert weights.fingerprint_of([str(tmp_path)]) != before


def test_a_run_on_a_relative_base_is_evaluated_from_another_folder(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = arguments("base", "run", "train.max_steps=1", "evaluate.benchmark=[]")
    run = train(compose_run(command))
    assert json.loads((run.weights / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["eval", f"run={tmp_path / 'run'}", *EVALUATION]) == 0
    assert main(["eval", f"checkpoint={tmp_path / 'run' / 'checkpoint'}", "output_dir=own", *EVALUATION]) == 0


def test_paths_of_data_and_evaluation_are_stored_absolute_and_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "sets").mkdir()
    words = ["data.own={source: local, path: rows.jsonl, image_root: ~/sets}", "output_dir=~/out", "data_root=sets"]
    words += ["evaluate.settings.xstest.path=sets", "evaluate.judge.each.vlsbench.path=sets", "model.path=owner/name"]
    config = compose_run(["recipe=mm_sft", *words]).config
    assert config.data["own"].path == str(tmp_path / "rows.jsonl")
    assert str(tmp_path / "sets") in (config.data["own"].image_root, *config.data["own"].image_root)
    assert (config.output_dir, config.data_root) == (str(tmp_path / "out"), str(tmp_path / "sets"))
    assert (
        config.evaluate.settings["xstest"].path
        == config.evaluate.judge.each["vlsbench"]["path"]
        == str(tmp_path / "sets")
    )
    assert config.model.path == "owner/name"


def test_a_checkpoint_is_asked_with_the_prompts_and_images_that_its_run_was_trained_with(tiny, tmp_path, capsys):
    shown = ["model.system_prompt=be good", "model.max_pixels=1024", "model.min_pixels=1024"]
    command = arguments(tiny("qwen2_vl"), tmp_path / "run", "train.max_steps=1", "evaluate.benchmark=[]", *shown)
    run = train(compose_run(command))
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    capsys.readouterr()
    assert main(["eval", f"checkpoint={run.weights}", f"output_dir={tmp_path / 'other'}", *EVALUATION]) == 0
    assert "model.system_prompt=be good, model.min_pixels=1024, model.max_pixels=1024" in capsys.readouterr().out
    hashes = [
        [json.loads(line)["prompt_hash"] for line in (folder / "evaluation" / "mini_vsil" / "responses.jsonl").open()]
        for folder in (run.path, tmp_path / "other")
    ]
    assert hashes[0] == hashes[1]


def test_a_second_start_of_a_run_is_refused_and_says_who_holds_the_folder(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1", "evaluate.benchmark=[]")
    with alone(tmp_path / "run"):
        with pytest.raises(UserError, match=f"process {os.getpid()} on "):
            train(compose_run(command))
        assert not RunFolder(tmp_path / "run").manifest()
    assert train(compose_run(command)).finished()


def test_the_lock_of_a_killed_run_is_taken_back(tmp_path):
    lines = ["from align.run_lock import alone", "from pathlib import Path", "import time"]
    lines += [f"with alone(Path({str(tmp_path)!r})):", "    print('held', flush=True)", "    time.sleep(60)"]
    holder = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on "), alone(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with alone(tmp_path):
        assert json.loads((tmp_path / ".running.json").read_text())["pid"] == os.getpid()


def test_a_run_that_another_run_needs_is_waited_for_while_somebody_trains_it(tmp_path):
    ended = []
    with alone(tmp_path):
        waiting = threading.Thread(target=lambda: (wait_until_free(tmp_path), ended.append(True)))
        waiting.start()
        waiting.join(0.3)
        assert not ended
    waiting.join(10)
    assert ended


@pytest.mark.long
@pytest.mark.slow
def test_of_two_processes_that_start_a_run_at_once_one_trains_it(tiny, tmp_path):
    command = train_command(*arguments(tiny("llava"), "run", "train.max_steps=40", "evaluate.benchmark=[]"))
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode == 0 for process in both) == [False, True], said
    steps = [json.loads(line)["step"] for line in RunFolder(tmp_path / "run").steps_file.open()]
    assert steps == list(range(1, 41))


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(tiny, tmp_path, capsys):
    command = arguments(
        tiny("llava"), tmp_path / "run", "train.max_steps=3", "train.save_steps=1", "evaluate.benchmark=[]"
    )
    run = train(compose_run([*command, "train.save_total_limit=3"]))
    whole = load_file(run.weights / "adapter_model.safetensors")
    for step, file in ((3, "adapter_model.safetensors"), (2, "optimizer.pt")):
        damaged = run.checkpoints / f"checkpoint-{step}" / file
        damaged.write_bytes(damaged.read_bytes()[:-100])
    run.record(status="running")
    train(compose_run([*command, "train.save_total_limit=3"]))
    said = capsys.readouterr().out
    assert "checkpoint-3 is damaged (adapter_model.safetensors" in said
    assert "checkpoint-2 is damaged (optimizer.pt" in said
    assert "resumed from step 1" in said
    again = load_file(run.weights / "adapter_model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_files_have_the_modes_that_the_umask_says(tiny, tmp_path):
    before = os.umask(0o022)
    try:
        run = train(
            compose_run(arguments(tiny("llava"), tmp_path / "run", "train.max_steps=1", "evaluate.benchmark=[]"))
        )
        assert main(["report", f"runs={tmp_path}", f"output={tmp_path / 'report.html'}"]) == 0
    finally:
        os.umask(before)
    files = [
        tmp_path / "report.html",
        *(path for path in run.path.rglob("*") if path.is_file() and ".running" not in path.name),
    ]
    modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in files}
    assert set(modes.values()) == {"0o644"}, modes
    assert all(path.stat().st_mode & 0o055 == 0o055 for path in run.path.rglob("*") if path.is_dir())


def test_a_folder_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    RunFolder(tmp_path / "run").record(status="finished")
    read = Path.read_bytes

    def refused(self):  # the tests may run as root, who may read everything
        if self.name == "manifest.json":
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UserError, match=str(tmp_path / "run" / "manifest.json")) as refused:
        collect(tmp_path)
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "scheduler.pt").unlink(),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: (folder / "trainer_state.json").write_text("[]"),
        lambda folder: (folder / "optimizer.pt").write_bytes(changed((folder / "optimizer.pt").read_bytes())),
        lambda folder: [file.unlink() for file in folder.iterdir()],
    ],
    ids=["no optimizer", "no scheduler", "no adapter", "no state", "another state", "changed bytes", "empty"],
)
def test_a_checkpoint_that_lacks_or_changes_something_is_not_resumed_from(saved_run, tmp_path, damage):
    run = RunFolder(shutil.copytree(saved_run, tmp_path / "run"))
    (run.checkpoints / "checkpoint-old").mkdir()
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-2"
    damage(run.checkpoints / "checkpoint-2")
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-1"


def changed(content):
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 20]) + content[middle + 20 :]


@pytest.fixture(scope="module")
def saved_run(tiny, tmp_path_factory):
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    words = ["train.max_steps=2", "train.save_steps=1", "train.save_total_limit=3", "evaluate.benchmark=[]"]
    return train(compose_run(arguments(tiny("llava"), folder, *words))).path


def test_another_chat_template_behind_the_same_path_is_another_run(base, tmp_path):
    command = arguments(base, tmp_path / "run", "train.max_steps=1", "evaluate.benchmark=[]")
    run = train(compose_run(command))
    run.record(status="running")
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("user", "one"))
    with pytest.raises(UserError, match="its rendering is"):
        train(compose_run(command))


def test_how_a_step_is_cut_and_where_files_are_leave_a_run_the_same(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "what is this", "response": "a cup", "role": "benign"}\n')
    data = ["data.harmful=null", "view=text", "train.max_steps=1", "evaluate.benchmark=[]"]
    file = f"data.benign={{source: local, path: {tmp_path / 'rows.jsonl'}}}"
    run = train(compose_run(arguments(base, tmp_path / "run", file, *data)))
    (tmp_path / "moved").mkdir()
    shutil.copy(tmp_path / "rows.jsonl", tmp_path / "moved")
    (tmp_path / "link").symlink_to(base)
    run.record(status="running")
    moved = f"data.benign={{source: local, path: {tmp_path / 'moved' / 'rows.jsonl'}, on_missing_image: drop}}"
    words = [*arguments(tmp_path / "link", run.path, moved, *data), "model.name=base", "allow_label_conflict=true"]
    assert train(compose_run([*words, "train.per_device_train_batch_size=2"])).finished()

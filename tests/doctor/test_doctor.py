"""`align doctor`: what is wrong is named with what to do, and the exit status says whether a run can start."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.doctor import chosen, machine, packages
from align.doctor.machine import Device
from align.planning.skeleton import SHIPPED
from align.training.run import train
from tests.support.launch import ENVIRONMENT, align
from tests.support.small_run import arguments, one_long_row

SECRET = "sk-a-secret-of-mine"


def doctor(capsys, *words):
    """(exit status, {name: check}) of a look in this process."""
    capsys.readouterr()  # what libraries said when a fixture imported them
    status = main(["doctor", "format=json", *words])
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == 1
    assert said["can_run"] == (status == 0)
    return status, {check["name"]: check for check in said["checks"]}


def other_package(folder, name, version, code=None):
    """A package as pip leaves it: its metadata, and perhaps its code."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if code is not None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)


def test_a_machine_that_serves_is_said_to_and_why(capsys):
    status, checks = doctor(capsys)
    assert status == 0
    assert checks["torch"]["found"].startswith(importlib.metadata.version("torch"))
    assert ">=2.9" in checks["torch"]["found"]
    assert checks["cpu"]["status"] == "ok"
    assert "memory" in checks["cpu"]["found"]
    assert {"disk output_dir", "disk HF_HOME", "disk XDG_CACHE_HOME", "token HF_TOKEN"} <= set(checks)


def test_as_text_each_check_is_a_line_and_the_last_one_concludes(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert any(line.startswith("ok") and " trl " in line for line in shown.splitlines())
    assert shown.splitlines()[-1] == "Runs can start here: yes"
    assert SECRET not in shown
    few = ["data.harmful.rows=4", "data.benign.rows=4", "evaluate.benchmark=[]"]
    assert main(["doctor", "recipe=mm_sft", "model.path=/nowhere/x", *few]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("missing") and "the folder model.path=/nowhere/x does not exist" in line for line in lines
    )
    assert lines[-1] == "This run can start here: no (model)"


@pytest.mark.long
@pytest.mark.slow
def test_a_broken_torchvision_stops_it_and_an_old_peft_is_a_warning_and_no_token_is_shown(tmp_path):
    other_package(tmp_path, "torchvision", "0.1.0", "raise RuntimeError('operator torchvision::nms does not exist')\n")
    other_package(tmp_path, "peft", "0.1.0")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = ENVIRONMENT | {"PYTHONPATH": path, "HF_TOKEN": SECRET, "WANDB_API_KEY": SECRET}
    command = align("doctor", "format=json")
    look = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert look.returncode == 1, look.stderr
    assert SECRET not in look.stdout + look.stderr
    checks = {check["name"]: check for check in json.loads(look.stdout)["checks"]}
    assert checks["torchvision"]["status"] == "broken"
    assert checks["torchvision"]["found"].startswith("torchvision 0.1.0 with torch 2.")
    assert "operator torchvision::nms does not exist" in checks["torchvision"]["found"]
    assert "uninstall torchvision" in checks["torchvision"]["todo"]
    assert checks["peft"]["status"] == "warning"
    assert checks["peft"]["found"].startswith("0.1.0, outside the range >=0.19")
    assert checks["token HF_TOKEN"]["found"] == checks["token WANDB_API_KEY"]["found"] == "set"


def test_a_torchvision_that_can_be_imported_is_fine(tmp_path, monkeypatch):
    other_package(tmp_path, "torchvision", "0.9.9", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert packages.torchvision().status == "ok"
    assert "torchvision 0.9.9" in packages.torchvision().found


def test_every_extra_says_what_it_enables():
    extras = set(importlib.metadata.metadata("vsil-align").get_all("Provides-Extra"))
    assert extras - {"dev", "browser"} == set(packages.ENABLES)


def test_an_extra_that_is_absent_stops_nothing(capsys, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "openai":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    status, checks = doctor(capsys)
    assert status == 0
    assert checks["extra openai"]["found"].startswith("openai not installed")
    assert checks["extra openai"]["todo"].startswith("pip install 'vsil-align[openai]'")


def test_a_run_that_can_start(tiny, capsys):
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"))
    assert status == 0
    assert checks["data.harmful"]["found"] == "24 rows, 24 different images"
    assert "llava, weights" in checks["model"]["found"]
    assert "1 x 8 x 1 (processes x rows per device x accumulation steps)" in checks["configuration"]["found"]


def test_rows_that_would_stop_a_run_are_named(tiny, tmp_path, capsys):
    file = one_long_row(tmp_path)
    own = [
        "data.harmful=null",
        f"data.benign={{source: local, path: {file}, role: benign}}",
        "view=text",
    ]
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"), *own)
    assert (status, checks["rows"]["status"]) == (1, "broken")
    assert "benign/r7: 3" in checks["rows"]["found"]
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"), *own, "on_bad_row=drop")
    assert (status, checks["rows"]["status"]) == (0, "ok")


@pytest.mark.parametrize(
    ("given", "name", "found", "todo"),
    [
        ("trian.max_steps=3", "configuration", "there is no setting trian (did you mean 'train'?)", "correct it"),
        ("train.packing=true", "configuration", "train.packing would have no effect", "correct it"),
        ("global_batch_size=0", "configuration", "expected at least 1", "correct it"),
        ("generation.api_key_env=" + SECRET, "configuration", "expected the NAME", "correct it"),
        ("model=/nowhere/at/all", "configuration", "no such model", "correct it"),
        ("model.path=/nowhere/at/all", "model", "the folder model.path=/nowhere/at/all does not exist", ""),
        ("model.adapter=/nowhere", "adapter", "adapter_model.safetensors does not exist", ""),
        (
            "data.harmful={source: local, path: /nowhere.jsonl}",
            "data.harmful",
            "path=/nowhere.jsonl does not exist",
            "",
        ),
        ("evaluate.benchmark=vlsbench", "benchmark vlsbench", "give evaluate.settings.vlsbench.path=<folder", ""),
        ("train.report_to=wandb", "needs wandb", "train.report_to=wandb needs wandb", "vsil-align[wandb]"),
        ("model.quantization=nf4", "needs bitsandbytes", "nf4 needs bitsandbytes", "vsil-align[quant]"),
        ("train.optim=adamw_bnb_8bit", "needs bitsandbytes", "train.optim=adamw_bnb_8bit", "vsil-align[quant]"),
        ("model.attn_implementation=flash_attention_2", "needs flash_attn", "flash_attn", "pip install 'flash-attn'"),
        ("generation={base_url: 'http://localhost:1/v1', model: m}", "needs openai", "openai", "vsil-align[openai]"),
        (
            "generation={base_url: 'http://localhost:1/v1', model: m, api_key_env: NO_SUCH_KEY}",
            "token NO_SUCH_KEY",
            "not set",
            "export NO_SUCH_KEY",
        ),
    ],
)
def test_what_would_stop_a_run_is_named(tiny, capsys, monkeypatch, given, name, found, todo):
    for module in ("wandb", "bitsandbytes", "flash_attn", "openai"):
        monkeypatch.setitem(sys.modules, module, None)  # as if they were not installed
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"), given)
    assert status == 1
    assert checks[name]["status"] in ("missing", "broken")
    assert found in checks[name]["found"]
    assert todo in checks[name]["todo"]
    assert SECRET not in json.dumps(checks)


def test_all_that_is_wrong_is_said_at_once(capsys):
    broken = ["recipe=mm_sft", "model=mini_llava", "model.path=/nowhere/x", "evaluate.benchmark=vlsbench,safebench"]
    status, checks = doctor(capsys, *broken, "data.harmful={source: local, path: /a}", "data.benign.subset=nothing")
    assert status == 1
    wrong = {name for name, check in checks.items() if check["status"] in ("missing", "broken")}
    assert wrong == {"model", "data.harmful", "data.benign", "benchmark vlsbench", "benchmark safebench"}


def test_a_model_of_another_family_and_one_without_weights_are_refused(tiny, tmp_path, capsys):
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"), f"model.path={tmp_path}")
    assert status == 1
    assert "lacks config.json, a tokenizer" in checks["model"]["found"]
    for file in tiny("llava").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "vipllava"}))
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"), f"model.path={tmp_path}")
    assert checks["model"]["status"] == "broken"
    assert "llava" in checks["model"]["todo"]


def test_settings_of_a_run_without_its_recipe_and_misspelt_ones_are_mistakes(capsys):
    assert main(["doctor", "model=mini_llava"]) == 2
    assert re.search(r"model=.*recipe=<name>", capsys.readouterr().err)
    assert main(["doctor", "comn=true"]) == 2
    assert "did you mean 'comm'" in capsys.readouterr().err
    assert main(["doctor", "format=xml"]) == 2


def test_a_comm_check_of_one_process_says_how_to_launch_several(capsys):
    status, checks = doctor(capsys, "comm=true")
    assert status == 0
    assert checks["processes"]["status"] == "warning"
    assert "ACCELERATE_USE_CPU=true" in checks["processes"]["todo"]
    assert "--multi_gpu --num_processes 2" in checks["processes"]["todo"]


def test_bf16_without_hardware_for_it_is_a_warning(tiny):
    old, new = (Device("gpu", 1, 2, "7.5", bf16) for bf16 in (False, True))
    config = compose_run([*arguments(tiny("llava"), "run"), "model.dtype=bfloat16"]).config
    (check,) = chosen.precision(config, [new, old])
    assert (check.status, "cuda:1" in check.found, "cuda:0" in check.found) == ("warning", True, False)
    (check,) = chosen.precision(config, [new])
    assert check.status == "ok"
    config.model.dtype = "float32"
    assert list(chosen.precision(config, [old])) == []
    found = {check.name: check for check in machine.device_checks([new, old])}
    assert (found["cuda:0"].status, found["cuda:1"].status) == ("ok", "warning")


def test_the_space_that_full_fine_tuning_takes_is_what_it_takes(tiny, tmp_path, capsys, monkeypatch):
    saving = ["train.save_steps=1", "train.save_total_limit=1", "train.max_steps=3", "lora=null"]
    composed = compose_run(arguments(tiny("llava"), tmp_path / "run", *saving))
    needed = chosen.space(composed.config)["disk output_dir"]
    run = train(composed)
    weights = (tiny("llava") / "model.safetensors").stat().st_size
    checkpoint = sum(file.stat().st_size for file in run.last_checkpoint().rglob("*"))
    # Towers that are frozen have no moments, so that a checkpoint may hold a little less; its
    # tokenizer is a little more.
    assert 2.5 * weights < checkpoint < chosen.BYTES_SAVED / 4 * weights * 1.1
    assert needed == weights // 4 * (2 * chosen.BYTES_SAVED + 4)  # a new checkpoint is written before the old one goes
    usage = machine.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    (check,) = [c for c in machine.disk_checks(str(tmp_path), {"disk output_dir": needed}) if "output_dir" in c.name]
    assert check.status == "warning"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    (check,) = [c for c in machine.disk_checks(str(tmp_path), {"disk output_dir": needed}) if "output_dir" in c.name]
    assert check.status == "ok"


def test_an_adapter_takes_no_space_worth_a_word(tiny):
    assert chosen.space(compose_run(arguments(tiny("llava"), "run")).config)["disk output_dir"] == 0


def test_memory_is_part_of_the_answer(tiny, tmp_path, capsys):
    """A 7B trained in full in float32 takes some 144 GiB by the plan; no machine of these tests has them."""
    config = json.loads((SHIPPED / "llava-1.5-7b-hf" / "config.json").read_text())
    folder = shutil.copytree(tiny("llava"), tmp_path / "large")
    (folder / "config.json").write_text(json.dumps(config))  # the weights are not opened
    small = arguments(folder, "run", "view=text", "allow_label_conflict=true", "train.max_length=null")
    status, checks = doctor(capsys, *small, "lora=null")
    assert (status, checks["memory"]["status"]) == (1, "broken")
    assert 100 < float(re.search(r"about ([0-9.]+) GiB", checks["memory"]["found"]).group(1)) < 200
    status, checks = doctor(capsys, *arguments(tiny("llava"), "run"))
    assert (status, checks["memory"]["status"]) == (0, "ok")

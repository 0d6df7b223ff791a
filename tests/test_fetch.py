"""Staged where there is a network, run where there is none: `align fetch`, and what a run says of what is missing.

The hub is a server on the loopback (tests/support/hub_server.py); the client is the real one, in processes of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.models import presence
from align.models.loading import load_without_weights
from align.settings import ModelSettings
from align.training.preflight import missing
from align.training.run import train
from tests.support.hub_mirror import COMMIT, hub_server
from tests.support.launch import ENVIRONMENT, align, train_command
from tests.support.small_run import arguments

NAME = "acme/tiny-llava"


def network(home: Path, url: str) -> dict[str, str]:
    """The environment of a login node whose hub is our server."""
    known = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return ENVIRONMENT | known | {"HF_HOME": str(home)}


def run_in(environment, folder, *words):
    return subprocess.run(
        align(*words), cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def repository(tiny, tmp_path_factory):
    """A model as people upload it: with copies of the weights that nobody here reads."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(tiny("llava"), folder, dirs_exist_ok=True)
    for copy in ("original/model.safetensors", "onnx/model.onnx", "pytorch_model.bin", "model.gguf"):
        (folder / copy).parent.mkdir(exist_ok=True)
        (folder / copy).write_bytes(b"not to be fetched")
    return folder


@pytest.fixture(scope="module")
def staged(repository, tmp_path_factory):
    """(HF_HOME after one `align fetch`, what it printed, what the server was asked for); the server is gone."""
    home = tmp_path_factory.mktemp("home")
    with hub_server({NAME: repository}) as hub:
        done = run_in(network(home, hub.url), home, "fetch", *arguments(NAME, "run"))
    assert done.returncode == 0, done.stderr
    return home, done.stdout, hub.downloaded


@pytest.fixture
def offline_node(staged, tmp_path, monkeypatch):
    """This process as a node without a network, with a copy of the cache; gives the snapshot's folder."""
    shutil.copytree(staged[0], tmp_path / "home", symlinks=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home" / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT


def test_what_is_read_is_fetched_and_no_copies_of_it(staged, repository, tiny):
    _, printed, downloaded = staged
    assert sorted(downloaded) == sorted(file.name for file in tiny("llava").iterdir())
    size = sum(file.stat().st_size for file in tiny("llava").iterdir()) / (1 << 20)
    assert f"revision main (commit {COMMIT}): {len(downloaded)} files, {size:.1f} MiB, {size:.1f} of them" in printed
    assert f"model.revision={COMMIT}" in printed
    assert "data.harmful: 24 rows, 24 different images" in printed


def test_the_last_lines_are_the_command_for_a_node_without_a_network(staged):
    command = next(line for line in staged[1].splitlines() if "HF_HUB_OFFLINE=1" in line)
    assert command.startswith(
        "  HF_HUB_OFFLINE=1 accelerate launch align/train.py recipe=mm_sft model=acme/tiny-llava "
    )
    assert "'data.harmful={source: miniature, subset: image_harmful, rows: 24}'" in command  # as a shell reads it


@pytest.mark.long
@pytest.mark.slow
def test_the_run_works_without_a_network_after_the_fetch(staged, tmp_path):
    command = train_command(*arguments(NAME, "run", "train.max_steps=1", f"model.revision={COMMIT}"))
    environment = ENVIRONMENT | {"HF_HOME": str(staged[0]), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for extra in ("dry_run=true", "dry_run=false"):
        done = subprocess.run(
            [*command, extra], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoint" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.long
def test_without_the_fetch_the_run_names_the_model_and_the_command(tmp_path):
    environment = ENVIRONMENT | {"HF_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [
            sys.executable,
            str(Path(presence.__file__).parents[1] / "train.py"),
            *arguments(NAME, "run"),
            "model.revision=v1",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert f"model {NAME}, revision v1: not in the cache" in done.stderr
    assert f"align fetch recipe=mm_sft model={NAME}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_model_data_and_benchmarks_that_are_missing_are_said_at_once(offline_node, tmp_path):
    wanted = [
        "recipe=mm_sft",
        "model=acme/other",
        "data.harmful={source: local, path: /nowhere/harmful.jsonl}",
        f"data.benign={{source: local, path: {tmp_path}, image_root: /nowhere/images}}",
        "evaluate.benchmark=vlsbench.blank",
        "evaluate.settings={vlsbench: {path: /nowhere/vlsbench}, safebench: {path: /not/evaluated}}",
        "model.adapter=/nowhere/adapter",
    ]
    with pytest.raises(UserError) as error:
        train(compose_run(wanted))
    named = (
        "model acme/other, revision main: not in the cache",
        "adapter /nowhere/adapter",
        "data.harmful.path=/nowhere/harmful.jsonl",
        "data.benign.image_root=/nowhere/images",
        "evaluate.settings.vlsbench.path=/nowhere/vlsbench",
        "judge vlsbench: no model is given. Give evaluate.judge.base_url=",
    )
    assert all(name in str(error.value) for name in named)
    assert str(error.value).count("\n  - ") == len(named)


def test_with_a_network_a_model_that_is_not_in_the_cache_is_not_missing(offline_node, monkeypatch):
    config = compose_run(arguments("acme/other", "run")).config
    assert len(missing(config)) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert missing(config) == []


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_a_fetch_that_was_cut_short_is_noticed(offline_node, file):
    config = compose_run(arguments(NAME, "run")).config
    assert missing(config) == []
    (offline_node / file).unlink()
    (line,) = missing(config)
    assert NAME in line
    assert "incomplete in the cache" in line or file == "config.json"


def test_an_absent_shard_is_named(shared, tmp_path):
    real = shared / "hub" / "llava-1.5-7b-hf"
    weights = presence.weights_of(real)
    assert weights.there == 0
    assert weights.total == 2 * 7_063_427_072  # bf16 (environment.md)
    assert set(weights.absent) <= set(presence.lacking(real))
    assert len(weights.absent) == 3


def test_evaluation_says_it_too(offline_node, capsys):
    words = ["model=acme/other", "benchmark=mini_vsil", "limit=2", f"output_dir={offline_node.parent}"]
    assert main(["eval", *words]) == 2
    assert "model acme/other, revision main: not in the cache" in capsys.readouterr().err
    assert load_without_weights(ModelSettings(name="x", path=NAME)).family.model_type == "llava"


def test_a_second_fetch_downloads_nothing_and_other_names_are_said_to_be_missing(staged, repository):
    home = staged[0]
    with hub_server({NAME: repository, "acme/shut": repository}, gated={"acme/shut"}) as hub:
        several = arguments(f"{NAME},acme/shut,acme/unknown", "run")
        done = run_in(network(home, hub.url), home, "fetch", *several)
    assert done.returncode == 1
    assert "0.0 of them downloaded now" in done.stdout
    assert hub.downloaded == []
    missing_lines = done.stdout.partition("Missing:")[2]
    assert "model acme/shut, revision main: gated: accept its terms" in missing_lines
    assert "model acme/unknown, revision main: no such repository, or a private one" in missing_lines
    assert NAME not in missing_lines
    assert done.stdout.count("HF_HUB_OFFLINE=1 accelerate launch") == 3


def test_data_and_benchmarks_are_looked_at_and_generated_answers_left_to_the_run(offline_node, tmp_path, capsys):
    from tests.support.unanswered import write_rows

    file = write_rows(tmp_path / "rows", 4)
    words = [
        "recipe=mm_dpo,mm_sft",
        f"model={NAME}",
        "data.benign=null",
        f"data.harmful={{source: local, path: {file}, harmful_response: generate}}",
    ]
    assert main(["fetch", *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count("data.harmful: 4 rows, 4 different images") == 2
    assert re.search(r"Still to do: data\.harmful\.harmful_response=generate: .*base model", printed)
    assert "HF_HUB_OFFLINE is set" in printed  # this process may not ask the hub
    (tmp_path / "rows" / "2.png").unlink()
    assert main(["fetch", *words, "evaluate.benchmark=vlsbench"]) == 1
    missing_lines = capsys.readouterr().out.partition("Missing:")[2].splitlines()
    assert any("- data.harmful: 1 of 4 rows lack their image" in line for line in missing_lines)
    assert any(
        "- benchmark vlsbench: " in line and "evaluate.settings.vlsbench.path=" in line for line in missing_lines
    )


def built() -> Path:
    """A model that is made where it is not there, as the miniature's are."""
    from align.miniature.models import build

    folder = Path(os.environ["BUILT_HERE"])
    if not folder.is_dir():
        model, processor = build("llava")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def test_a_model_that_is_built_is_built_now(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BUILT_HERE", str(tmp_path / "built"))
    (tmp_path / "own.yaml").write_text("model: {build: 'tests.test_fetch:built'}\nsuite: miniature\n")
    few = ["data.harmful.rows=4", "data.benign.rows=4", "evaluate.benchmark=[]"]
    assert main(["fetch", "recipe=mm_sft", f"model={tmp_path / 'own.yaml'}", *few]) == 0
    assert (tmp_path / "built" / "model.safetensors").is_file()
    assert f"Model own: built, 2.5 MiB, in {tmp_path / 'built'}" in capsys.readouterr().out


def test_a_misspelt_setting_is_a_mistake_before_anything_is_fetched(capsys):
    assert main(["fetch", "recipe=mm_sft", "model=mini_lava"]) == 2
    assert "did you mean 'mini_llava'" in capsys.readouterr().err

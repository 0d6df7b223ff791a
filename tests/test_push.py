"""`align push`: what others need of a model, to a real server on the loopback, in private unless said otherwise."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file

from align.cli import main
from align.config.compose import compose_run
from align.models.loading import load_checkpoint
from align.models.merging import probe
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.hub_server import hub_server
from tests.support.launch import ENVIRONMENT, ROOT, align
from tests.support.small_run import arguments

REPO = "somebody/safe-llava"
ADAPTER_FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run on a local base."""
    return train(compose_run(arguments(tiny("llava"), tmp_path_factory.mktemp("home") / "run", "train.max_steps=2")))


@pytest.fixture
def hub(monkeypatch):
    """A hub, the address and token of which are the user's; large files go the way of git-lfs,
    which needs no second server.
    """
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def push(run, *more):
    return main(["push", f"run={run.path}", f"repo={REPO}", *more])


def test_a_run_is_pushed_with_its_card_and_nothing_else(run, tiny, hub, tmp_path, capsys):
    assert push(run, "base=somebody/base") == 0
    shown = capsys.readouterr().out
    assert f"Uploaded (private): {hub.url}/{REPO}/commit/1" in shown
    assert "Not uploaded: training_args.bin" in shown
    assert hub.private == {REPO: True}
    assert hub.files[REPO].keys() == ADAPTER_FILES
    assert hub.large.keys()
    assert len(hub.commits) == 1
    for content in hub.files[REPO].values():
        assert str(run.path.parent).encode() not in content
        assert str(tiny("llava").parent).encode() not in content
    found = ModelCard(hub.files[REPO]["README.md"].decode())
    assert (found.data.base_model, found.data.base_model_relation) == ("somebody/base", "adapter")
    there = tmp_path / "there"
    there.mkdir()
    for name, content in hub.files[REPO].items():
        (there / name).write_bytes(content)
    settings = json.loads((there / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "somebody/base"
    (there / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(tiny("llava"))}))
    assert torch.equal(probe(load_checkpoint(str(there))), probe(load_checkpoint(str(run.weights))))


def test_the_run_folder_is_left_as_it_was(run, hub):
    before = {path: path.read_bytes() for path in run.weights.iterdir()}
    assert push(run, "base=somebody/base") == 0
    assert {path: path.read_bytes() for path in run.weights.iterdir()} == before


def test_a_dry_run_lists_files_and_sizes_and_sends_nothing(run, hub, capsys):
    assert push(run, "base=somebody/base", "dry_run=true") == 0
    shown = capsys.readouterr().out
    listed = {
        name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+)  (\S+)$", shown, re.MULTILINE)
    }
    assert listed.keys() == ADAPTER_FILES
    assert listed["adapter_model.safetensors"] == (run.weights / "adapter_model.safetensors").stat().st_size
    assert "Dry run: nothing was sent" in shown
    assert hub.private == {}


def test_a_merged_model_is_pushed_on_request_in_public(run, hub, tmp_path):
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run.path}", f"output_dir={merged}"]) == 0
    assert main(["push", f"checkpoint={merged}", f"repo={REPO}", "private=false"]) == 0
    assert hub.private == {REPO: False}
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md"} <= hub.files[REPO].keys()
    assert not any(str(tmp_path).encode() in content for content in hub.files[REPO].values())


def test_the_command_pushes_to_the_hub_of_the_environment(run, hub, tmp_path):
    """In a process of its own, as a user types it: the address and the token are the ones that
    huggingface_hub reads.
    """
    environment = ENVIRONMENT | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = align("push", f"run={run.path}", f"repo={REPO}", "base=somebody/base")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert hub.files[REPO].keys() == ADAPTER_FILES
    assert hub.token not in done.stdout + done.stderr


def test_private_never_goes_to_a_public_repository(run, hub, capsys):
    hub.private[REPO] = False
    assert push(run, "base=somebody/base") == 2
    assert re.search(f"repo={REPO} .*public.*private=false", capsys.readouterr().err)
    assert hub.files == {}
    assert push(run, "base=somebody/base", "private=false") == 0
    assert hub.files[REPO].keys() == ADAPTER_FILES


def test_a_push_goes_on_in_a_repository_that_is_there(run, hub, capsys):
    assert push(run, "base=somebody/base") == push(run, "base=somebody/base") == 0
    assert len(hub.commits) == 2


def test_the_token_is_never_shown(run, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert push(run, "base=somebody/base") == 2
    shown = capsys.readouterr()
    assert f"repo={REPO}" in shown.err
    assert "(403)" in shown.err
    assert "hf_wrong" not in shown.out + shown.err


def test_without_token_or_network_it_says_what_to_do(run, hub, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push(run, "base=somebody/base") == 2
    assert re.search("http://127.0.0.1:9 .*HF_HUB_OFFLINE", capsys.readouterr().err)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert push(run, "base=somebody/base") == 2
    assert "HF_HUB_OFFLINE is not set" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    assert push(run, "base=somebody/base") == 2
    assert re.search("no token .*`hf auth login`.*HF_TOKEN", capsys.readouterr().err)
    assert hub.private == {}


def test_what_others_could_not_use_is_not_pushed(run, tiny, hub, tmp_path, capsys):
    unfinished = RunFolder(shutil.copytree(run.path, tmp_path / "unfinished"))
    unfinished.record(status="running")
    cardless = RunFolder(shutil.copytree(run.path, tmp_path / "cardless"))
    (cardless.weights / "README.md").unlink()
    stock = RunFolder(shutil.copytree(run.path, tmp_path / "stock"))
    (stock.weights / "README.md").write_text("# Model\n\n[More Information Needed]\n")
    pickled = RunFolder(shutil.copytree(run.path, tmp_path / "pickled"))
    torch.save(load_file(pickled.weights / "adapter_model.safetensors"), pickled.weights / "adapter_model.bin")
    (pickled.weights / "adapter_model.safetensors").unlink()
    evaluated = RunFolder(tmp_path / "vanilla")
    evaluated.record(status="finished", method=None)
    base = "base=somebody/base"
    for words, expected in [
        ([f"run={unfinished.path}", base], "not finished yet; train it first"),
        ([f"run={tmp_path}", base], "not a run folder"),
        ([f"run={evaluated.path}", base], "a model that was not trained here"),
        ([f"run={cardless.path}", base], "no card .README.md.*`align eval"),
        ([f"run={stock.path}", base], "its README.md is an empty form"),
        ([f"run={pickled.path}", base], "no weights"),
        ([f"run={run.path}"], f"base is a local folder .{tiny('llava')}., .* base=<owner>"),
        ([f"run={run.path}", "base=llava"], "base=llava: expected <owner>/<name>"),
        ([f"run={run.path}", "repo=llava"], "repo=llava: expected <owner>/<name>"),
        ([f"checkpoint={tmp_path / 'nowhere'}"], "no weights"),
        ([f"checkpoint={tiny('llava')}"], "no card .README.md"),
        ([], "run=.* or checkpoint="),
    ]:
        assert main(["push", f"repo={REPO}", *words]) == 2
        assert re.search(expected, capsys.readouterr().err), expected
    assert hub.private == {}

"""The command `align`: quick to answer, and plain about mistakes."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest

from align import settings
from align.cli import VERBS, main
from tests.support.launch import ROOT


def test_help_lists_every_verb_and_imports_nothing_heavy():
    heavy = "[m for m in ('torch', 'transformers', 'trl', 'numpy', 'omegaconf', 'rich') if m in sys.modules]"
    probe = f"import sys; from align.cli import main; main(['--help']); print({heavy})"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")
    assert all(f"align {verb}" in shown for verb in VERBS)
    assert all(len(line) <= 80 for line in shown.splitlines()[:-1])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_its_options_in_80_columns_and_all_of_them_on_request(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"align {verb}")
    options = shown.splitlines()[1:]
    assert len([line for line in options if re.match(r"  [a-z]\S*", line)]) >= 3
    assert all(len(line) <= 80 for line in options)
    if verb not in ("train", "plan", "fetch"):  # their `train.*` imports trl
        assert main([verb, "--help", "all"]) == 0
        every = capsys.readouterr().out
        for field in fields(getattr(settings, VERBS[verb].schema)):
            assert re.search(rf"^  {field.name}\b", every, re.MULTILINE), field.name


def test_the_help_of_a_run_begins_with_what_is_used_most_and_has_a_section_for_the_rest(capsys):
    assert main(["train", "--help"]) == 0
    first = re.findall(r"^  (\S+)", capsys.readouterr().out, re.MULTILINE)
    assert first[:2] == ["recipe", "model"]
    assert len([key for key in first if not key.endswith("*")]) <= 30
    sections = [key.removesuffix(".*") for key in first if key.endswith("*")]
    assert sections == [
        "model",
        "data",
        "generation",
        "train",
        "lora",
        "rewards",
        "cost",
        "evaluate",
        "launch",
        "judge",
    ]
    for section, key in [
        ("data", "data.<name>.caption_share"),
        ("judge", "evaluate.judge.api_key_env"),
        ("evaluate", "evaluate.settings.<name>.limit"),
        ("train", "train.learning_rate"),
        ("train", "train.beta"),
    ]:
        assert main(["train", "--help", section]) == 0
        assert re.search(rf"^  {re.escape(key)}\b", capsys.readouterr().out, re.MULTILINE), key
    assert main(["train", "--help", "dta"]) == 2
    assert "'data'" in capsys.readouterr().err


def test_a_mistake_exits_with_status_2_and_one_line(capsys):
    assert main(["tabel"]) == 2
    assert "there is no `align tabel`" in capsys.readouterr().err
    assert main(["table", "runz=x"]) == 2
    assert "error: argument 'runz=': there is no setting runz (did you mean 'runs'?)" in capsys.readouterr().err
    assert main(["table", "runs=/nowhere"]) == 2
    assert "error: runs=/nowhere: not a folder" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("align 0.")


def test_a_command_that_may_ask_nothing_of_a_model_does_not_wait_for_torch():
    commands = ["evaluate", "data", "leakage", "sweep", "table", "doctor", "train"]
    probe = f"""
import importlib, sys
for command in {commands}:  # the first that imports one of these is the one to mend
    importlib.import_module(f"align.commands.{{command}}")
    print(command, [m for m in ("torch", "transformers", "sklearn") if m in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [f"{command} []" for command in commands]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["lora.r=8,16"], ["lora.r", "align sweep lora.r=8,16"]),
        (["lora.rank=8"], ["lora.rank", " r, lora_alpha"]),
        (["lora=8"], ["lora=8", "<section>.<setting>"]),
        (["seed=one"], ["seed", "whole number", "'one'"]),
        (["data.own.pth=x"], ["data.own.pth", "'path'"]),
        (["recipe=t_sft,mm_sft"], ["align sweep recipe=t_sft,mm_sft", "align compare"]),
    ],
)
def test_a_mistake_names_the_setting_what_is_expected_and_no_class(words, facts, capsys):
    assert main(["train", "recipe=mm_sft", "dry_run=true", *words]) == 2
    said = capsys.readouterr().err
    assert all(fact in said for fact in facts), said
    assert not any(name in said for name in ("ListConfig", "RunConfig", "Lora'", "Part'"))


def test_the_nearest_verb_is_named(capsys):
    assert main(["trian", "recipe=mm_sft"]) == 2
    assert "'train'" in capsys.readouterr().err.splitlines()[0]


def test_a_reader_that_reads_no_further_is_no_error():
    piped = subprocess.run(
        f"{sys.executable} -m align.cli | head -1", shell=True, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (len(piped.stdout.splitlines()), piped.stderr) == (1, "")


def test_a_folder_that_may_not_be_written_is_named(tmp_path, capsys, monkeypatch):
    from align.commands import table

    def refused(_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "out"))

    monkeypatch.setattr(table, "main", refused)  # the tests may run as root, who may write everywhere
    assert main(["table", f"runs={tmp_path}"]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_as_a_library_it_prints_warnings_alone():
    probe = "import logging; from align.console import say; say('a fact'); logging.getLogger('align.x').warning('a warning')"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("", "a warning\n")
    asked = f"from align.console import show_log; show_log(); {probe}"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("a fact\n", "a warning\n")

"""The command `align`: quick to answer, and plain about mistakes."""

import re
import subprocess
import sys

import pytest

from align.cli import VERBS, main


def test_help_lists_every_verb_and_imports_nothing_heavy():
    heavy = "[m for m in ('torch', 'transformers', 'trl', 'numpy', 'omegaconf', 'rich') if m in sys.modules]"
    probe = f"import sys; from align.cli import main; main(['--help']); print({heavy})"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")
    assert all(f"align {verb}" in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_describes_its_keys(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"align {verb}")
    assert len(re.findall(r"^  [a-z]\S* +\S.*\]$", shown, re.MULTILINE)) >= 3  # key, meaning, [default]


def test_a_mistake_exits_with_status_2_and_one_line(capsys):
    assert main(["tabel"]) == 2
    assert "there is no `align tabel`" in capsys.readouterr().err
    assert main(["table", "runz=x"]) == 2
    assert "error: argument 'runz=': Key 'runz' not in 'TableConfig'. Did you mean: 'runs'?" in capsys.readouterr().err
    assert main(["table", "runs=/nowhere"]) == 2
    assert "error: runs=/nowhere: not a folder" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("align 0.")


@pytest.mark.parametrize("command", ["evaluate", "data", "leakage", "sweep", "table", "doctor", "train"])
def test_a_command_that_may_ask_nothing_of_a_model_does_not_wait_for_torch(command):
    probe = f"import sys, align.commands.{command}; print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"

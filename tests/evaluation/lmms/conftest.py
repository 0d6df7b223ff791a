"""A stand-in for lmms_eval where what is tested is ours, and the real program where there is one."""

import importlib.util
import os
import shlex
import sys

import pytest

from tests.support.launch import ROOT

STAND_IN = shlex.join([sys.executable, str(ROOT / "tests" / "support" / "lmms_eval_stand_in.py")])


@pytest.fixture
def evaluation(tiny, tmp_path):
    """A function: tasks, further arguments -> the arguments of `align eval` of the tiny LLaVA as it
    is, without sets of our own.
    """

    def arguments(tasks, *more, family="llava"):
        model = [f"model={tiny(family)}", "model.dtype=float32", f"output_dir={tmp_path / 'run'}"]
        return ["eval", *model, f"lmms_eval.tasks={tasks}", f"lmms_eval.command={STAND_IN}", *more]

    return arguments


@pytest.fixture(scope="session")
def lmms_eval():
    """The command of the real lmms_eval: of this environment, or the one that ALIGN_LMMS_EVAL says."""
    if command := os.environ.get("ALIGN_LMMS_EVAL"):
        return command
    if importlib.util.find_spec("lmms_eval") is None:
        pytest.skip("lmms_eval is not installed here; ALIGN_LMMS_EVAL='<its python> -m lmms_eval' names one elsewhere")
    return f"{sys.executable} -m lmms_eval"

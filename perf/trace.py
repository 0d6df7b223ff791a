"""List the functions of this project that one training step calls, from the command to its loss.

    python -m perf.trace [key=value ...]

Prints functions, files and lines of function bodies, by folder, for `align train recipe=mm_sft
model=mini_llava train.max_steps=1 evaluate.benchmark=[]`, or for the given arguments. Functions in
all threads of this process count, and so does code that is imported during the run. Generator
functions count; comprehensions, generator expressions and lambdas do not. `list=true` prints the
names of the functions.
"""

from __future__ import annotations

import collections
import inspect
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import align
from align.config.compose import compose_run

PACKAGE = str(Path(align.__file__).parent)
RUN = ("recipe=mm_sft", "model=mini_llava", "train.max_steps=1", "evaluate.benchmark=[]")


TRAINING = "_until_finished_or_asked"
"""The function of align/training/run.py that computes the steps: from rows to the loss and the
weights."""


def traced(arguments: list[str], folder: str) -> tuple[list[CodeType], list[CodeType]]:
    """(Functions of this project that a run calls, those that it calls in its steps), each once."""
    whole: dict[CodeType, None] = {}
    steps: dict[CodeType, None] = {}
    inside = False

    def enter(frame: FrameType, event: str, _: Any) -> None:
        nonlocal inside
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or event not in ("call", "return"):
            return
        if code.co_name == TRAINING:
            inside = event == "call"
        if event == "call" and not _is_part(code):
            whole.setdefault(code)
            if inside:
                steps.setdefault(code)

    threading.setprofile(enter)
    sys.setprofile(enter)
    try:
        from align.training.run import train

        train(compose_run([*arguments, f"output_dir={folder}/run"]))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return list(whole), list(steps)


def _is_part(code: CodeType) -> bool:
    """Whether code is part of a function, and not a function itself.

    Comprehensions, generator expressions, lambdas and class bodies are parts.
    """
    return code.co_name.startswith("<") or not code.co_flags & inspect.CO_NEWLOCALS or "__module__" in code.co_names[:2]


def main(arguments: list[str]) -> None:
    """Print the functions that a run calls."""
    listed = "list=true" in arguments
    arguments = [argument for argument in arguments if argument != "list=true"] or list(RUN)
    with tempfile.TemporaryDirectory() as folder:
        whole, steps = traced(arguments, folder)
    for what, codes in (("the whole run", whole), ("its steps, from rows to loss", steps)):
        files = collections.defaultdict(list)
        for code in codes:
            files[str(Path(code.co_filename).relative_to(PACKAGE))].append(code)
        for file, of_file in sorted(files.items()) if listed else ():
            print(f"{len(of_file):4}  {file}  {' '.join(code.co_qualname for code in of_file)}")
        lines = sum(len(inspect.getsourcelines(code)[0]) for code in codes)
        print(f"{what}: {len(codes)} functions in {len(files)} files, {lines:,} lines of bodies")


if __name__ == "__main__":
    main(sys.argv[1:])

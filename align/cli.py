"""The command `align`: one verb, then key=value arguments. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from align import __version__
from align.answering.budget import begin_command
from align.errors import UserError, nearest, not_permitted


class Verb(NamedTuple):
    """One command."""

    main: str
    """`module:function` below align.commands: arguments -> exit status."""
    schema: str
    """The dataclass of its settings, in align.settings."""
    summary: str
    usage: str


VERBS = {
    "train": Verb(
        "train:main", "TrainConfig", "train one recipe on one model, then evaluate it", "recipe=<name> [model=<name>]"
    ),
    "eval": Verb(
        "evaluate:main",
        "EvalConfig",
        "evaluate a run, a checkpoint or a model",
        "run=<folder> | checkpoint=<folder> | model=<name>",
    ),
    "compare": Verb(
        "compare:main",
        "CompareConfig",
        "train and evaluate all arms of the comparison",
        "[model=<names>] [seed=<numbers>]",
    ),
    "table": Verb(
        "table:main",
        "TableConfig",
        "make tables from run folders, with the paper's numbers",
        "runs=<folder> [format=md|csv|json|latex]",
    ),
    "report": Verb(
        "report:main", "ReportConfig", "make one HTML page from run folders", "runs=<folder> [output=<file>]"
    ),
    "data": Verb(
        "data:main",
        "DataConfig",
        "show what is in a data set, and what two have in common",
        "source=<name> | benchmark=<names> [path=<folder>] [sample=5]",
    ),
    "plan": Verb(
        "plan:main",
        "PlanConfig",
        "estimate memory, FLOPs, steps and hours of runs",
        "recipe=<names> model=<names> [plan.gpus=1,4,8]",
    ),
    "doctor": Verb(
        "doctor:main",
        "DoctorConfig",
        "check what this machine can run and what is missing",
        "[recipe=<name> model=<name>] [comm=true]",
    ),
    "fetch": Verb(
        "fetch:main",
        "RunConfig",
        "download what a run needs, for nodes without a network",
        "recipe=<name> model=<name>",
    ),
    "sweep": Verb(
        "sweep:main",
        "SweepConfig",
        "train a grid of runs, on this machine or on SLURM",
        "recipe=<names> <setting>=<values> [launcher=local|slurm] [status=true]",
    ),
    "leakage": Verb(
        "leakage:main",
        "LeakageConfig",
        "measure how much harm the text of a benchmark shows",
        "benchmark=<names> judge=<names> [against=<benign benchmark>]",
    ),
    "construct": Verb(
        "construct:main",
        "ConstructConfig",
        "construct image-text pairs whose harm only the image shows",
        "recipe=construct/<name> [dry_run=true] [review=export]",
    ),
    "calibrate": Verb(
        "calibrate:main",
        "CalibrateConfig",
        "compare judges with the labels of people",
        "path=<file of labels> judge=<names>",
    ),
    "merge": Verb(
        "merge:main",
        "MergeConfig",
        "merge an adapter into its base model",
        "run=<folder> | checkpoint=<folder> output_dir=<folder>",
    ),
    "convert": Verb(
        "convert:main",
        "ConvertConfig",
        "convert an original LLaVA checkpoint for transformers",
        "checkpoint=<folder> output_dir=<folder>",
    ),
    "push": Verb(
        "push:main",
        "PushConfig",
        "upload an adapter or a model with its card to the hub",
        "run=<folder> | checkpoint=<folder> repo=<owner>/<name>",
    ),
}
"""In the order of the help."""
DAILY = ("train", "eval", "compare", "table", "report", "data")
"""Verbs that the help lists first."""
TRAIN = "accelerate launch align/train.py recipe=<name>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status is 2 for something that the user can correct."""
    try:
        status = _main(arguments)
        sys.stdout.flush()
        return status
    except (
        BrokenPipeError
    ):  # of `align ... | head`: nobody reads any more, also what Python itself would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"align {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        print(f"error: there is no `align {verb}`{nearest(verb, list(VERBS))}\n\n{usage()}", file=sys.stderr)
        return 2
    main_of, schema, summary, usage_of = VERBS[verb]
    if any(word in ("--help", "-h") for word in rest):
        from align.config.help import describe

        sections = [word for word in rest if not word.startswith("-") and "=" not in word]
        try:
            print(f"align {verb} {usage_of} [key=value ...]\n{summary}\n")
            print(describe(verb, _load(f"align.settings:{schema}"), sections))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    from align.console import show_log

    begin_command()
    show_log()
    try:
        return _load(f"align.commands.{main_of}")(rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"error: {not_permitted(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def usage() -> str:
    """The verbs, and the grammar of arguments."""
    width = max(map(len, VERBS))
    lines = {verb: f"  align {verb:<{width}}  {of.summary}" for verb, of in VERBS.items()}
    daily = "\n".join(lines[verb] for verb in DAILY)
    others = "\n".join(line for verb, line in lines.items() if verb not in DAILY)
    return (
        f"{daily}\n\n{others}\n\nArguments are key=value; a comma makes a list; a.b=c sets a field of a "
        "section.\n`align <verb> --help` shows its options. `align train ... dry_run=true` shows a\nrun without "
        f"training. `{TRAIN}`\nis `align train` without its exit status for schedulers."
    )


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())

"""The command `align`: one verb, then key=value arguments. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from align import __version__
from align.answering.budget import begin_command
from align.config.help import describe
from align.errors import UserError, nearest, not_permitted

VERBS = {
    "calibrate": (
        "align.commands.calibrate:main",
        "align.settings:CalibrateConfig",
        "judges against people: path=<human labels> judge=<names>",
    ),
    "compare": (
        "align.commands.compare:main",
        "align.settings:CompareConfig",
        "train and evaluate every arm of the comparison, and make the tables",
    ),
    "convert": (
        "align.commands.convert:main",
        "align.settings:ConvertConfig",
        "an original LLaVA checkpoint as transformers reads it: checkpoint=, output_dir=<folder>",
    ),
    "data": (
        "align.commands.data:main",
        "align.settings:DataConfig",
        "what is in a data set, and what two have in common: source=<name> | benchmark=<names>, path=, sample=5, summary=true",
    ),
    "doctor": (
        "align.commands.doctor:main",
        "align.settings:DoctorConfig",
        "what this machine can run and what is missing: [recipe=<name> model=<name> ...] [comm=true]",
    ),
    "eval": (
        "align.commands.evaluate:main",
        "align.settings:EvalConfig",
        "evaluate a run, a checkpoint or a model: run= | checkpoint= | model=",
    ),
    "fetch": (
        "align.commands.fetch:main",
        "align.settings:RunConfig",
        "what a run needs, staged for nodes without a network: the arguments of the run",
    ),
    "leakage": (
        "align.commands.leakage:main",
        "align.settings:LeakageConfig",
        "how much of a set's harm its text gives away: benchmark=<names> judge=<names> [against=<benign set>]",
    ),
    "merge": (
        "align.commands.merge:main",
        "align.settings:MergeConfig",
        "an adapter and its base as one model: run= | checkpoint=, output_dir=<folder>",
    ),
    "plan": (
        "align.commands.plan:main",
        "align.settings:PlanConfig",
        "what runs would cost: parameters, memory, FLOPs, steps, hours: recipe=<names> model=<names> plan.gpus=1,4,8",
    ),
    "push": (
        "align.commands.push:main",
        "align.settings:PushConfig",
        "a run's adapter or model and its card to the hub: run= | checkpoint=, repo=<owner>/<name>",
    ),
    "report": (
        "align.commands.report:main",
        "align.settings:ReportConfig",
        "one HTML page from run folders: runs=<folder> [output=<file>]",
    ),
    "sweep": (
        "align.commands.sweep:main",
        "align.settings:SweepConfig",
        "a grid of runs, here or on SLURM: recipe=a,b model=c,d seed=0,1 <any setting>=<values> launcher=local|slurm [status=true]",
    ),
    "table": (
        "align.commands.table:main",
        "align.settings:TableConfig",
        "tables from run folders, the paper's numbers beside them: runs=<folder> format=md|csv|json|latex",
    ),
    "train": (
        "align.commands.train:main",
        "align.settings:TrainConfig",
        "train one recipe on one model on this machine's GPUs, then evaluate: recipe=<name> [model=<name>] [launch.config=ddp]",
    ),
}
TRAIN = "accelerate launch align/train.py recipe=<name> [model=<name>]"


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
    command, schema, summary = VERBS[verb]
    if any(word in ("--help", "-h") for word in rest):
        print(f"align {verb} [key=value ...]\n{summary}\n\n{describe(_load(schema))}")
        return 0
    begin_command()
    try:
        return _load(command)(rest)
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
    """What there is to type."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  align {verb:<{width}}  {summary}" for verb, (_, _, summary) in VERBS.items())
    return (
        f"{verbs}\n\n`align train` is, with an exit status that schedulers can act on:\n  {TRAIN}\n\n"
        "Arguments are key=value; a comma makes a list; a.b=c sets a field of a section.\n"
        "`align <verb> --help` lists its keys; `dry_run=true` shows a training run without training."
    )


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())

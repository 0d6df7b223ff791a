"""Train one recipe on one model:  accelerate launch align/train.py recipe=mm_sft [model=...] [key=value ...]

Recipe + model -> rows -> trl's trainer -> run folder -> evaluation in a separate process.
`dry_run=true` shows the settings, the data and one example, and trains nothing. To resume an
unfinished run, repeat its command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

try:
    from align.config.compose import compose_run
    from align.config.registry import REWARD_MODEL
except ImportError as missing:
    sys.exit(f"{missing}; install the package first: `pip install -e .` in the checkout, or `pip install vsil-align`")


from align.complaint import complain
from align.console import quiet_deprecations, show_log
from align.errors import UserError, message_of, not_permitted
from align.interruption import EXIT_AGAIN, NOTICE, Interrupted
from align.run_folder import RunFolder
from align.training.run import train


def main(arguments: Sequence[str]) -> int:
    """Train, then evaluate in a separate process.

    Returns the exit status: 75 if the run was interrupted (see `Notice`).
    """
    show_log()
    composed = compose_run(arguments)
    if composed.config.dry_run:
        from align.training.dry_run import show

        show(composed)
        return 0
    NOTICE.listen()
    quiet_deprecations()
    try:
        run = train(composed)
    except Interrupted as interrupted:
        NOTICE.ignore()
        _close_process_group()
        if not composed.config.resume:
            print(f"{interrupted}; to resume it, set resume=true", file=sys.stderr, flush=True)
            return 1  # with resume=false the same command would start from the first step
        print(f"{interrupted}; to resume it, repeat the command", file=sys.stderr, flush=True)
        return EXIT_AGAIN
    NOTICE.deferred = False
    if NOTICE.signal:  # it came during the last step, or while the weights were saved
        NOTICE.ignore()
        print(
            f"{NOTICE.signal}: the run is trained but not evaluated; to evaluate it, repeat the command",
            file=sys.stderr,
            flush=True,
        )
        _close_process_group()
        return EXIT_AGAIN
    if composed.config.method == REWARD_MODEL or not composed.config.evaluate_afterwards:
        if _close_process_group():
            print(_finished(run, composed.config), flush=True)
        return 0
    return evaluate_afterwards(run, composed.config)


def _finished(run: RunFolder, config: Any) -> str:
    """The last line of a run that is not evaluated; a reward model writes no responses."""
    if config.method != REWARD_MODEL:
        return f"Training is finished. To evaluate the run: align eval run={run.path}"
    from align.report.reward_models import accuracy_line
    from align.report.run_results import Evaluated

    return f"Training is finished: {accuracy_line(Evaluated(run))}"


def evaluate_afterwards(run: RunFolder, config: Any) -> int:
    """Close the process group, then evaluate the run folder in a child of the main process."""
    import gc

    import torch

    is_main = _close_process_group()
    # The child process loads the model again, so training must release its device memory first.
    gc.collect()
    torch.cuda.empty_cache()
    if not is_main:
        return 0
    if not config.evaluate.benchmark:
        from align.evaluation.curve import lacking

        print(
            f"The run is not evaluated: evaluate.benchmark= is empty. To evaluate it later: "
            f"align eval run={run.path} benchmark=<names>"
        )
        if line := lacking(run, config.evaluate.every_steps):
            print(line, flush=True)
        return 0
    from align.evaluation.hook import evaluate_in_child

    return evaluate_in_child(run)


def _close_process_group() -> bool:
    """Close the process group. Returns whether this is the main process."""
    from accelerate import PartialState

    state = PartialState()
    is_main = state.is_main_process
    state.destroy_process_group()
    return is_main


if __name__ == "__main__":
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            from align.config.help import describe
            from align.settings import RunConfig

            sections = [word for word in sys.argv[1:] if not word.startswith("-") and "=" not in word]
            print(f"{__doc__}\n{describe('train', RunConfig, sections)}")
            sys.exit(0)
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        complain(message_of(error))
        sys.exit(2)
    except PermissionError as error:
        complain(not_permitted(error))
        sys.exit(2)

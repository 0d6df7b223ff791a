"""accelerate's launcher with the exit status of the processes that it launches, as `align train` starts it.

accelerate and torch end with status 1 and some thirty lines about any process that fails. A mistake of the user (status 2) has its own
line on the screen already, and needs no more; anything else is reported as they do.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence

MISTAKE = 2


def main(arguments: Sequence[str]) -> int:
    """Launch and wait. Raises what the launcher raises where a process failed by no mistake of the user's."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # which values accelerate chose itself, which process torch ended: nothing to act on
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        if MISTAKE not in {failure.exitcode for failure in error.failures.values()}:
            raise
        return MISTAKE
    except subprocess.CalledProcessError as error:
        if error.returncode != MISTAKE:
            raise
        return MISTAKE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""accelerate's launcher with the exit status of the processes that it launches, for `align train`.

accelerate and torch end with status 1 and about thirty lines for any process that fails. Where a
process has printed the cause (a mistake of the user, an evaluation that did not succeed), those
lines are omitted; every other failure is reported as accelerate and torch do.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence

from align.complaint import complained


def main(arguments: Sequence[str]) -> int:
    """Launch and wait. Raises the launcher's error if a process failed without a message."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # values that accelerate chose, processes that torch ended
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        if not complained():
            raise
        return max(failure.exitcode for failure in error.failures.values())
    except subprocess.CalledProcessError as error:
        if not complained():
            raise
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

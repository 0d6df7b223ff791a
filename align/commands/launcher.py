"""accelerate's launcher with the exit status of the processes that it launches, as `align train` starts it.

accelerate and torch end with status 1 and some thirty lines about any process that fails. Where a process has said what is wrong, a
mistake of the user or an evaluation that did not succeed, that is enough; anything else is reported as they do.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence

from align.complaint import complained


def main(arguments: Sequence[str]) -> int:
    """Launch and wait. Raises what the launcher raises where a process failed and said nothing."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # which values accelerate chose itself, which process torch ended: nothing to act on
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

"""`align construct` in a process that kills itself with SIGKILL at the so-manyth thing that it
writes, half written.

python construction_deaths.py <number, 0 for never> <arguments of align>

Without a death it prints how many things it wrote: lines of replies and of steps, images, files in
order, funnels and results.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from align import cli
from align.commands import construct
from align.construction import run, work
from align.construction.roles import reply_log

WRITTEN = 0


def main(death: int, arguments: list[str]) -> int:
    """Count what is written; the death comes in the middle of it."""

    def now() -> bool:
        global WRITTEN
        WRITTEN += 1
        return death == WRITTEN

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_line(append):
        def appending(file, record):
            if now():
                line = json.dumps(record, ensure_ascii=False).encode()
                file.flush()
                os.write(file.fileno(), line[: len(line) // 2])
                die()
            return append(file, record)

        return appending

    def half_an_image(write):
        def writing(path, content):
            if now():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{path.name}.part").write_bytes(content[: len(content) // 2])
                die()
            return write(path, content)

        return writing

    def before(function):
        def called(*args, **kwargs):
            if now():
                die()
            return function(*args, **kwargs)

        return called

    run.append_jsonl = half_a_line(run.append_jsonl)
    reply_log.append_jsonl = half_a_line(reply_log.append_jsonl)
    work.write_image = half_an_image(work.write_image)
    run.keep_lines = before(run.keep_lines)
    construct.write_json = before(construct.write_json)
    construct.write_result = before(construct.write_result)
    status = cli.main(arguments)
    print(f"wrote {WRITTEN}")
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

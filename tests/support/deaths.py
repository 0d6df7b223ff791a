"""`align` in a process that kills itself with SIGKILL at a place, where nobody outside could hit it.

python deaths.py <place> <how often it comes there before> <share of a line that is written> <arguments of align>
"""

from __future__ import annotations

import json
import os
import signal
import sys

from align import cli
from align.evaluation import answers, evaluation
from align.evaluation.judges import run as judged
from align.evaluation.judges.cache import VerdictCache


def cut(line: str, share: float) -> bytes:
    """What is there of a line that a kill cut: at least a byte, never its end."""
    content = line.encode()
    return content[: max(1, round(share * (len(content) - 1)))]


def at(place: str, times: int, share: float) -> None:
    """Put the death in its place."""
    left = [times]

    def dies() -> bool:
        left[0] -= 1
        return left[0] <= 0

    def now(*_) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_line(append):
        def appending(file, record):
            if not dies():
                return append(file, record)
            file.flush()
            os.write(file.fileno(), cut(json.dumps(record, ensure_ascii=False) + "\n", share))
            return now()

        return appending

    def half_a_line_of_the_cache(add):
        def adding(cache, key, verdict):
            if not dies():
                return add(cache, key, verdict)
            with cache.path.open("ab") as file:
                file.write(cut(json.dumps({"key": key} | verdict, ensure_ascii=False) + "\n", share))
            return now()

        return adding

    def after(add):
        def adding(cache, key, verdict):
            add(cache, key, verdict)
            if dies():
                now()

        return adding

    if place == "half a response":
        answers.append_jsonl = half_a_line(answers.append_jsonl)
    elif place == "half a verdict":
        judged.append_jsonl = half_a_line(judged.append_jsonl)
    elif place == "half a line of the cache":
        VerdictCache.add = half_a_line_of_the_cache(VerdictCache.add)
    elif place == "known to the cache alone":
        VerdictCache.add = after(VerdictCache.add)
    elif place == "responses not in order yet":
        answers.keep_lines = now
    elif place == "verdicts not in order yet":
        judged.keep_lines = now
    elif place == "no summary yet":
        evaluation.summarise = now
    else:
        raise ValueError(place)


if __name__ == "__main__":
    at(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    sys.exit(cli.main(sys.argv[4:]))

"""Judges as the arguments of a command name them."""

from align.config.compose import compose_eval
from align.evaluation.judges.build import judges_of
from align.evaluation.selection import selections_of

SOMEBODY = {"base_url": "http://localhost:1/v1", "model": "big"}
"""Settings of a judge behind an address that nobody asks."""


def judges(*arguments):
    """{set: its judges} of an evaluation with these arguments."""
    config = compose_eval(["model=mini_llava", *arguments]).config
    return judges_of(config.judge, selections_of(config))

"""The benchmark that a name stands for: a shipped one, `module:NAME`, or your own file under a name that you give it."""

from __future__ import annotations

import re
from dataclasses import replace

from align.config.registry import BENCHMARKS, GROUPS, resolve
from align.errors import UserError
from align.evaluation.benchmark import Benchmark
from align.settings import BenchmarkSettings

OWN_FILE = "local"
NAME = re.compile(r"[A-Za-z0-9_-]+")


def benchmark_of(name: str, settings: BenchmarkSettings | None, key: str = "benchmark") -> Benchmark:
    """The benchmark `name`; `settings.<name>.source=local` makes it the file at `settings.<name>.path`. Raises UserError."""
    if settings is None or settings.source is None:
        found: Benchmark = resolve(key, name, BENCHMARKS)
        return found
    check_own_file(f"settings.{name}", name, settings)
    file: Benchmark = resolve(key, OWN_FILE, BENCHMARKS)
    return replace(file, name=name)


def check_own_file(section: str, name: str, settings: BenchmarkSettings) -> None:
    """Raise UserError for another source than `local`, and for a name that is taken or is not a file name.

    `section` is where the settings are typed.
    """
    if settings.source != OWN_FILE:
        raise UserError(
            f"{section}.source={settings.source}: expected {OWN_FILE}, which reads your own file; remove source= for a "
            "shipped benchmark"
        )
    if name != OWN_FILE and (name in BENCHMARKS or name in GROUPS):
        raise UserError(
            f"{section}.source={OWN_FILE}: {name} is a shipped benchmark; give your file another name, e.g. "
            f"{section.removesuffix(name)}my_{name}.source={OWN_FILE}"
        )
    if not NAME.fullmatch(name):
        raise UserError(
            f"{section}.source={OWN_FILE}: {name!r} cannot name a folder of results; use letters, digits, - and _"
        )

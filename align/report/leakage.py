"""Results of `align leakage` next to the paper's numbers for the same benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json
from align.report.paper import leakage

SHARES = ("R1", "R2", "gap", "text_unsafe")


def leak_lines(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read leakage results below some folders -> (lines, notes on damaged files).

    A line has benchmark, judge, shares as text, n and the paper's numbers.
    """
    lines, notes = [], []
    for file in sorted({file for folder in folders for file in folder.rglob("leakage.*.json")}):
        try:
            found = read_json(file)
            lines.append(
                {
                    "set": found["set"],
                    "judge": f"{found['judge']} {found['judge_version']}",
                    "shares": [_share(found.get(key)) for key in SHARES],
                    "n": found["n_valid"],
                    "paper": [_published(r1, r2) for r1, r2 in leakage(found["set"])],
                }
            )
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            notes.append(f"{file}: damaged: {error}")
    return lines, notes


def _share(share: dict[str, float] | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _published(r1: Any, r2: Any) -> str:
    doubt = "*" if r1.doubt or r2.doubt else ""
    return f"{r1.judge}: {r1.value:g}, {r2.value:g}{doubt} ({r1.table})"

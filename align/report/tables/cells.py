"""Result of one arm on one benchmark -> cell: rate with interval and n, and remarks."""

from __future__ import annotations

from typing import Any

from align.report.names import LEAKS, MANY_INCOHERENT, percent
from align.report.paper import Published
from align.report.tables.table import Cell, interval


def rate_cell(result: dict[str, Any] | None, paper: Published | None = None) -> Cell:
    """Cell with rate, non-zero counts, bounds, rate by the published protocol, and leaks."""
    if result is None:
        return Cell()
    of_seeds = (f"only seed {result['seeds']}",) if result.get("seeds") else ()
    beside = (counts_line(result), *_bounds_line(result), *published_way(result), *leak_lines(result), *of_seeds)
    valid = result["n"] - result["counts"].get("invalid", 0)
    if result["rate"] is None:
        bounds = f"{percent(result['bounds']['low'])}-{percent(result['bounds']['high'])}"
        text, beside = f"withheld ({bounds}) {valid_n(result)}", (counts_line(result), *leak_lines(result), *of_seeds)
        short = (f"{result['counts']['invalid']} invalid", *of_seeds)
        return Cell(text, beside, short, n=valid, paper=paper, withheld=True, bounded=True)
    shown = interval(result["rate"], result["low"], result["high"])
    rate, low, high = (100 * result[key] for key in ("rate", "low", "high"))
    short = (*_published_way_if_other(result), *of_seeds)
    return Cell(f"{shown} {valid_n(result)}", beside, short, rate, low, high, valid, paper)


def counts_line(result: dict[str, Any]) -> str:
    """Non-zero counts: `unsafe 1, incoherent 2 (unfinished 1: truncated 1), invalid 4 (timeout 4)`."""
    rows = "rows: " if result["kind"] == "twin" else ""  # labels count pairs, and a pair has two rows
    why = ", ".join(f"{reason} {count}" for reason, count in (result.get("unfinished_reasons") or {}).items())
    of_all = (
        f" ({rows}unfinished {result['unfinished']}{f': {why}' if why else ''})" if result.get("unfinished") else ""
    )
    unfinished = {"incoherent": of_all}
    counts = ", ".join(f"{label} {n}{unfinished.get(label, '')}" for label, n in result["counts"].items() if n)
    reasons = ", ".join(f"{reason} {count}" for reason, count in result["invalid_reasons"].items() if count)
    return counts + (f" ({rows}{reasons})" if reasons else "")


def _bounds_line(result: dict[str, Any]) -> tuple[str, ...]:
    if not result["counts"].get("invalid"):
        return ()
    bounds = f"{percent(result['bounds']['low'])}-{percent(result['bounds']['high'])}"
    return (f"{bounds} if all invalid ones are bad or good",)


def valid_n(result: dict[str, Any]) -> str:
    """Number of items that a rate counts, and of all items if some have no verdict."""
    valid = result["n"] - result["counts"].get("invalid", 0)
    return f"n={valid}" if valid == result["n"] else f"n={valid} of {result['n']}"


def published_way(result: dict[str, Any]) -> tuple[str, ...]:
    """The rate with incoherent responses as judged (the published protocol), if there are many."""
    judged = result["as_judged"]
    if judged is None or result["counts"].get("incoherent", 0) <= MANY_INCOHERENT * result["n"]:
        return ()
    return (f"{percent(judged['good'] / judged['n'])} with incoherent ones as judged",)


def _published_way_if_other(result: dict[str, Any]) -> tuple[str, ...]:
    return tuple(line for line in published_way(result) if not line.startswith(f"{percent(result['rate'])} "))


def leak_lines(result: dict[str, Any]) -> tuple[str, ...]:
    """Rates of items whose text shows the harm and of the others, if measured."""
    parts = result.get("leak_split")
    if parts is None:
        return ()
    lines = [f"{name}: {_part(parts[key])}" for key, name in LEAKS.items()]
    return (*lines, *([f"unlabelled: n={parts['unlabelled']}"] if parts["unlabelled"] else []))


def _part(part: dict[str, Any]) -> str:
    valid = part["n"] - part["invalid"]
    n = f"n={valid}" + (f" of {part['n']}" if part["invalid"] else "")
    if part["rate"] is None:
        return f"withheld {n}" if part["n"] else n
    return f"{interval(part['rate'], part['low'], part['high'])} {n}"

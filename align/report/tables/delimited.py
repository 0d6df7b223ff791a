"""Results as comma-separated values: a line for each row, benchmark and judge."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from align.report import lmms_results as external
from align.report.ability import ABILITY
from align.report.names import LEAKS, Rows, arm_name, method_name, sorted_rows
from align.report.tables.rates import LEAD, paper_beside, paper_number

NUMBERS = ("kind", "n", "rate", "low", "high", "judge", "judge_version")
IN_PART = ("n", "invalid", "rate", "low", "high")


def comma_separated(rows: Rows) -> str:
    """Write rows as CSV, the main judge first.

    `steps` is a number; `stopped` says why a run stopped early. Columns of leaky and leak-free
    items exist if leaks were measured. Each lmms_eval metric has its own line, with a value and its
    error in its own unit, and no rate. `paper` is in percent, as printed.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    is_split = any("leak_split" in result for row in rows for result in row["results"].values())
    parts = [f"{part}_{key}" for part in LEAKS for key in IN_PART] + ["unlabelled"] if is_split else []
    head = [*LEAD, "set", *NUMBERS, "counts", "stopped", "metric", "value", "stderr", *parts]
    writer.writerow([*head, "tuning", "paper", "paper_table", "paper_doubt"])
    for row in sorted_rows(rows):
        for name, main in row["results"].items():
            writer.writerow(_result(row, name, main, True, len(parts)))
            for other in main.get("other_judges", []):
                writer.writerow(_result(row, name, other, False, len(parts)))
        for metric in external.metrics_of(row):
            writer.writerow(_metric(row, metric, len(parts)))
    return buffer.getvalue()


def _who(row: dict[str, Any]) -> list[Any]:
    names = [row["track"], row["model"], arm_name(row), method_name(row["method"])]
    return [*(_no_formula(name) for name in names), str(row["seed"]), row["steps"]]


def _no_formula(name: str) -> str:
    """Quote a name that a spreadsheet would take for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "@")) else name


def _result(row: dict[str, Any], name: str, result: dict[str, Any], main: bool, n_parts: int) -> list[Any]:
    own = result.get("leak_split")
    parts = [own[part][key] for part in LEAKS for key in IN_PART] + [own["unlabelled"]] if own else [""] * n_parts
    numbers = [result[key] for key in NUMBERS]
    paper = paper_beside(row, name, result, main)
    of_paper = [paper.value, paper.table, paper.doubt] if paper else ["", "", ""]
    counted = [json.dumps(result["counts"]), row["stopped"], "", "", ""]
    who = _who(row)
    who[LEAD.index("seed")] = result.get("seeds") or who[LEAD.index("seed")]
    return [*who, name, *numbers, *counted, *parts, row.get("tuning"), *of_paper]


def _metric(row: dict[str, Any], metric: dict[str, Any], n_parts: int) -> list[Any]:
    by = ["ability", metric["n"], "", "", "", metric["program"], metric["version"], ""]
    measured = [metric["metric"], metric["value"], metric["stderr"]]
    known = (name for name, ability in ABILITY.items() if (metric["set"], metric["metric"]) in ability.names)
    paper = next((number for name in known if (number := paper_number(row, name))), None)
    of_paper = [paper.value, paper.table, paper.doubt] if paper else ["", "", ""]
    rest = [*[""] * n_parts, row.get("tuning"), *of_paper]
    return [*_who(row), metric["set"], *by, row["stopped"], *measured, *rest]

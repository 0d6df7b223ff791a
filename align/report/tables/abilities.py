"""The table of lmms_eval's results: every metric in the units of its task."""

from __future__ import annotations

from collections.abc import Sequence

from align.report import lmms_results as external
from align.report.arms import Arm
from align.report.tables.rates import LEAD, labels, line_of, sorted_arms
from align.report.tables.table import Cell, Column, Line, Table

COLUMNS = [Column(name, "", name) for name in ("task", "metric", "value", "n")]


def measured_tables(arms: Sequence[Arm]) -> list[Table]:
    """One table of all arms and metrics; no table if nothing was measured."""
    lines: list[Line] = []
    label = labels([arm.row for arm in arms])
    for arm in sorted_arms(arms):
        for metric in external.metrics_of(arm.row):
            name, metric_name, value, n = external.cells(metric)
            cells = [Cell(name), Cell(metric_name), Cell(value, value=metric["value"], n=metric["n"]), Cell(n)]
            lines.append(line_of(arm, cells, label(arm.row)))
    if not lines:
        return []
    return [Table("lmms_eval", external.TITLE, LEAD, COLUMNS, lines, external.remarks([arm.row for arm in arms]))]

"""All tables of arms, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.errors import UserError
from align.report.arms import Arm
from align.report.run_results import Evaluated
from align.report.tables.abilities import measured_tables
from align.report.tables.categories import category_tables
from align.report.tables.defences import defence_tables
from align.report.tables.differences import difference_tables
from align.report.tables.labels import divided_tables
from align.report.tables.rates import rate_tables
from align.report.tables.reward_models import reward_model_tables
from align.report.tables.table import Table
from align.report.tables.thoughts import thought_tables

PARTS = (
    "rates",
    "divided",
    "thoughts",
    "defences",
    "differences",
    "categories",
    "measured",
    "reward_models",
)


def tables_of(
    arms: Sequence[Arm],
    comparisons: Sequence[dict[str, Any]],
    parts: Sequence[str] = PARTS,
    reward_models: Sequence[Evaluated] = (),
) -> list[Table]:
    """Tables of rates, labels, thoughts, defences, differences, categories, lmms_eval's results, and reward models.

    Raises UserError.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"tables={unknown[0]}: expected some of {', '.join(PARTS)}")
    made = {
        "rates": lambda: rate_tables(arms),
        "divided": lambda: divided_tables(arms),
        "thoughts": lambda: thought_tables(arms),
        "defences": lambda: defence_tables(arms),
        "differences": lambda: difference_tables(comparisons),
        "categories": lambda: category_tables(arms),
        "measured": lambda: measured_tables(arms),
        "reward_models": lambda: reward_model_tables(reward_models),
    }
    return [table for part in PARTS if part in parts for table in made[part]()]

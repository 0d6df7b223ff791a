"""Notes below tables with the paper's numbers: what differs between the paper and these runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from align.report.ability import ABILITY
from align.report.arms import Arm
from align.report.names import arm_name, sets_of
from align.report.paper import SOURCE, Published, paper_name
from align.report.tables.rates import AVERAGES, PAPERS_JUDGE, paper_beside, paper_number

LLAVA = ("llava_7b", "llava_13b")
RELEASED = ("mm_sft", "mm_dpo", "mm_ppo")
"""Rows of the paper's LLaVA that are checkpoints released by others."""
MODELS = {
    "LlamaGuard3-8B": r"Llama-Guard-3-8B(?![\w-])",
    "GPT-4o": r"gpt-4o(-\d{4}-\d\d-\d\d)?(?![\w-])",
    "GPT-4o-mini": r"gpt-4o-mini(-\d{4}-\d\d-\d\d)?(?![\w-])",
}
"""{judge of the paper: pattern of the version here if the same model judges}"""

Beside = tuple[dict[str, Any], str, Published]
"""(row, benchmark, the paper's number)"""


def notes_on_paper(arms: Sequence[Arm]) -> list[str]:
    """Lines on judges, training, sizes, released checkpoints, misprints.

    None without paper numbers.
    """
    rows = [arm.row for arm in arms]
    beside = list(_beside(rows))
    if not beside:
        return []
    tables = ", ".join(dict.fromkeys(number.table for _, _, number in beside))
    return [
        f"`paper` is the number that {SOURCE} prints for the same model, method and benchmark ({tables}), with "
        "averages recomputed from their cells; it was not measured here",
        *_judges(beside),
        *_training(beside),
        *_sizes(beside),
        *_released(beside),
        *_doubts(beside),
    ]


def _beside(rows: Sequence[dict[str, Any]]) -> Iterator[Beside]:
    sets = sets_of(rows)
    averages = [name for name, parts in AVERAGES.items() if set(parts) <= set(sets)]
    for row in rows:
        abilities = [name for name, ability in ABILITY.items() if ability.of(row)]
        for name in [*(name for name in sets if name in row["results"]), *averages, *abilities]:
            result = row["results"].get(name)
            if number := paper_beside(row, name, result) if result else paper_number(row, name):
                yield row, name, number


def _judges(beside: Sequence[Beside]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for row, name, number in beside:
        result = row["results"].get(name)
        if result is None:
            continue
        ours = PAPERS_JUDGE.get(number.judge)
        model = MODELS.get(number.judge)
        same = result["judge"] == ours and model and re.search(model, result["judge_version"], re.IGNORECASE)
        if same and ours == "llamaguard":
            continue
        words = (
            ", with a prompt of this package where the paper does not publish its prompt (judge.prompt=)"
            if same
            else ""
        )
        line = f"other judge: {number.judge} in the paper, {result['judge']} {result['judge_version']} here{words}"
        lines.setdefault(line, []).append(name)
    return [f"{line} ({', '.join(dict.fromkeys(names))})" for line, names in lines.items()]


def _training(beside: Sequence[Beside]) -> list[str]:
    trained: dict[str, list[str]] = {}
    for row, _, _ in beside:
        if row["method"] and row.get("tuning") != "full":
            trained.setdefault(row.get("tuning") or "training of unrecorded kind", []).append(
                f"{arm_name(row)} of {row['model']}"
            )
    lines = [
        f"{tuning} here, all parameters in the paper: {', '.join(dict.fromkeys(who))}"
        for tuning, who in trained.items()
    ]
    if any(row["method"] for row, _, _ in beside):
        lines.append(
            "the paper does not publish which training rows it chose: the rows here are seeded selections of the same "
            "data sets"
        )
    return lines


def _sizes(beside: Sequence[Beside]) -> list[str]:
    found: dict[str, None] = {}
    for row, name, number in beside:
        result = row["results"].get(name)
        if result and number.n:
            seeds = str(result.get("seeds") or row["seed"]).split(",")
            each = result["n"] // len(seeds)
            if each != number.n:
                found[f"other items: {name} has {each} here, {number.n} in the paper ({number.table})"] = None
    return list(found)


def _released(beside: Sequence[Beside]) -> list[str]:
    rows = {row["name"] for row, _, _ in beside if paper_name(row["model"]) in LLAVA and row["name"] in RELEASED}
    if not rows:
        return []
    return [
        f"the paper's LLaVA rows {', '.join(sorted(rows))} are checkpoints released by others, not trained for the "
        "paper"
    ]


def _doubts(beside: Sequence[Beside]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row, name, number in beside:
        if number.doubt:
            where = f"{paper_name(row['model'])} {row['name']} {name}"
            found.setdefault(f"marked *: {number.table}, {number.doubt}", []).append(where)
    of_table_16 = any(number.table == "table 16" for _, _, number in beside)
    return [
        *([TABLE_16] if of_table_16 else []),
        *(f"{doubt} ({', '.join(dict.fromkeys(where))})" for doubt, where in found.items()),
    ]


TABLE_16 = "table 16: 20 of its 30 rows fit 2,244 items, three of which were removed later; it is exact to 0.13 points"

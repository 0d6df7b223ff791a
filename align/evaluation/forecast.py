"""Forecast of an evaluation's requests and cost, before any request is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.answering.budget import CHARACTERS_PER_TOKEN, Budget
from align.answering.thinking import thinking_of
from align.errors import UserError
from align.evaluation.defended import defence_of
from align.evaluation.judges.build import judges_of
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.judges.thoughts import cases_of
from align.evaluation.lmms.measure import forecast as external_forecast
from align.evaluation.selection import Selected, selections_of
from align.evaluation.verdicts import AnyJudge
from align.files import read_jsonl
from align.settings import Evaluate


def forecast(config: Evaluate, folder: Path) -> Iterator[str]:
    """A line for each benchmark and each judge at an endpoint. Raises UserError.

    `folder` is the folder of the evaluation's results.
    """
    if not config.benchmark and not config.lmms_eval.tasks:
        raise UserError("benchmark= is missing. Give benchmark=<names>")
    selections = selections_of(config)
    judges = judges_of(config.judge, selections)
    defence = defence_of(config)
    if defence is not None:
        of_judge = ", and its judge" if defence.assessor else ""
        yield f"defence {defence.name}: at most {defence.most_calls} calls of the model for each response{of_judge}"
    for chosen in selections:
        there = _responses(chosen, folder)
        yield f"{chosen.name}: {len(chosen.rows)} responses, {len(there)} of them stored; judges: {_named(judges[chosen.name])}"
        # A missing response is assumed to have the greatest length.
        thinking = thinking_of(config.generation)
        answer, budget = config.generation.max_new_tokens, thinking.budget if thinking is not None else None
        tokens = {"response": answer, "thought": answer if budget is None else budget}
        longest = {key: "x" * round(n * CHARACTERS_PER_TOKEN) for key, n in tokens.items()}
        records = {row.id: there.get(row.id, longest) for row in chosen.items}
        for judge in judges[chosen.name]:
            if isinstance(judge, AskedJudge) and judge.address is not None:
                cases = cases_of(judge, chosen.items, records)
                told = Budget(judge.address, "judge").forecast(list(judge.requests(cases)))
                yield f"{chosen.name}: at most {len(cases)} verdicts of {judge.name}, {judge.settings['model']}; {told}"
    yield from external_forecast(config, folder)


def _responses(chosen: Selected, folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / chosen.name / "responses.jsonl"
    ids = {row.id for row in chosen.rows}
    stored = read_jsonl(file, growing=True) if file.is_file() else ()
    return {record["id"]: record for record in stored if record["id"] in ids}


def _named(judges: list[AnyJudge]) -> str:
    return ", ".join(f"{judge.name} {judge.version}" for judge in judges) or "none"

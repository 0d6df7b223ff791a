"""One evaluation: rows -> responses -> verdicts -> summary.

Each is written at once, so a kill loses none. Folder: <run>/evaluation/<benchmark>[.<view>]/ with
settings.json, responses.jsonl, and for each judge verdicts.<judge>.jsonl, items.<judge>.jsonl,
summary.<judge>.json. All responses are generated before judging, so that the model is loaded once
and freed before a judge is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from align.answering.model import Model
from align.console import Display
from align.errors import UserError
from align.evaluation.answers import Answered, Early
from align.evaluation.defended import defended
from align.evaluation.items import items_of
from align.evaluation.judges.build import judges_of
from align.evaluation.judges.run import judge_answers
from align.evaluation.judges.thoughts import THOUGHT, cases_of, sees_of
from align.evaluation.selection import selections_of
from align.evaluation.summary import summarise
from align.evaluation.thought_safety import write_thought_safety
from align.evaluation.verdicts import AnyJudge, Verdict, label_of
from align.files import read_json, write_json, write_text
from align.settings import Evaluate


class Scorer(Protocol):
    """What scores responses in addition to judges (align/rewards/scoring.py)."""

    def score(self, answered: Answered, display: Display) -> None:
        """Score the responses to one benchmark, and store the scores in its folder. Raises UserError."""

    def release(self) -> None:
        """Free its device memory."""


def evaluate(
    model: Model,
    config: Evaluate,
    folder: Path,
    display: Display | None = None,
    scorer: Scorer | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a model on every benchmark and view of a configuration -> {benchmark: result}.

    Stored responses and verdicts are reused. Raises UserError.
    """
    display = display or Display()
    if not config.benchmark:
        raise UserError("benchmark= is missing. Give benchmark=<names>")
    # Read everything first, to find a missing file or judge before the first response is generated.
    selections = selections_of(config)
    judges = judges_of(config.judge, selections)
    early = Early(display)
    model = defended(model, config, selections)
    try:
        answered = {chosen.name: Answered.of(model, chosen, config, folder, early) for chosen in selections}
    finally:
        model.release()
    if scorer is not None:
        try:
            for of_set in answered.values():
                scorer.score(of_set, display)
        finally:
            scorer.release()
    results: dict[str, dict[str, dict[str, Any]]] = {chosen.name: {} for chosen in selections}
    found: dict[tuple[str, str], dict[str, Verdict]] = {}
    # One judge at a time over all benchmarks: it may be a large model too.
    for judge in {judge.name: judge for of_set in judges.values() for judge in of_set}.values():
        try:
            for name, of_set in answered.items():
                if judge not in judges[name]:
                    continue
                verdicts = found[name, judge.name] = _verdicts(judge, of_set, display)
                if sees_of(judge) != THOUGHT:
                    results[name][judge.name] = _judged(judge, of_set, verdicts)
                    continue
                of_answers = next(one for one in judges[name] if judge.name == f"{one.name}_{THOUGHT}")
                write_thought_safety(of_set, of_answers, found[name, of_answers.name], verdicts)
        finally:
            judge.release()
    return {
        name: _kept(folder / name, [of_set[judge.name] for judge in judges[name] if judge.name in of_set])
        for name, of_set in results.items()
        if of_set
    }


def _verdicts(judge: AnyJudge, answered: Answered, display: Display) -> dict[str, Verdict]:
    """One judge's verdicts on one benchmark."""
    chosen, cases = answered.chosen, cases_of(judge, answered.chosen.items, answered.responses)
    path = answered.folder / f"verdicts.{judge.name}.jsonl"
    return judge_answers(judge, cases, answered.settled, path, f"{chosen.name}: verdicts of {judge.name}", display)


def _judged(judge: AnyJudge, answered: Answered, verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """One judge's result on one benchmark."""
    chosen, responses = answered.chosen, answered.responses
    labels = {row_id: label_of(verdict) for row_id, verdict in verdicts.items()}
    items = items_of(chosen.benchmark.kind, chosen.items, labels, answered.clusters, answered.pixels)
    lines = "".join(json.dumps(asdict(item)) + "\n" for item in items)
    write_text(answered.folder / f"items.{judge.name}.jsonl", lines)
    return summarise(chosen, judge, responses, verdicts, items, answered.facts)


def _kept(folder: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write each judge's result to its file -> the main (first) judge's result, with the others."""
    main, *others = results
    for former in folder.glob("summary.*.json"):  # another judge may have been the main one earlier
        if former.name != f"summary.{main['judge']}.json":
            write_json(former, read_json(former) | {"main": False})
    for result in (*others, main):  # the main one last, so that there are never two
        write_json(folder / f"summary.{result['judge']}.json", result | {"main": result is main})
    return main | ({"other_judges": others} if others else {})

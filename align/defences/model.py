"""A model behind a defence: it asks the model behind it for all rows of a pass together.

Rows go through their passes in chunks, and a row's result is given as soon as its last pass has it, so
a killed evaluation loses at most the unfinished rows of one chunk. The alternative, to store every pass,
would need a second file of replies that are no responses, with its own rules of what may be mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from align.answering.answer import Answer, Defended, Unanswered, parted_together, record_of
from align.answering.calls import call_id
from align.answering.model import Model
from align.answering.thoughts import Marks
from align.defences.defence import Ask, Consult, Defence, Label, Outcome, Reply, Steps
from align.errors import UserError
from align.rows import Row


class DefendedModel:
    """A model (align/answering/model.py) that answers through a defence.

    `chunk` is the number of rows that go through their passes together.
    """

    def __init__(self, model: Model, defence: Defence, chunk: int):
        """Raises UserError for a decoding hook on a model that does not run in this program."""
        self._model, self.defence, self._chunk = model, defence, chunk
        self.name = f"{model.name} with the defence {defence.name}"
        self.base, self.place, self.marks = model.base, model.place, model.marks
        self.identity: dict[str, Any] = model.identity | {"defence_settings": defence.identity}
        if defence.decoding is not None:
            decode_with = getattr(model, "decode_with", None)
            if decode_with is None:
                raise UserError(
                    f"defence={defence.name}: it changes how tokens are chosen, which needs a model that is loaded by "
                    f"this program with transformers; {model.name}{model.place} is not. Give model=, checkpoint= or "
                    "another defence="
                )
            decode_with(defence.decoding)

    @property
    def agreement(self) -> Any:
        """How closely the model's engine or server agrees with the model here."""
        return self._model.agreement

    def prompt(self, row: Row) -> str:
        """The model's first prompt for a row and, unless it says all, what else the response depends on."""
        first = self._model.prompt(self.defence.applied(row))
        if self.defence.prompt_says_all:
            return first
        return "\0".join([first, json.dumps(self.defence.identity, sort_keys=True), repr(self.marks)])

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One result per row, as soon as its last pass is done. Raises UserError."""
        for start in range(0, len(rows), self._chunk):
            passes = _Passes(self._model, self.defence)
            yield from passes.results(rows[start : start + self._chunk])
            if passes.failing:
                for row in rows[start + self._chunk :]:
                    yield replace(passes.failing, id=row.id)
                return

    def usage(self) -> str:
        """The usage so far of the model and of the defence's judge."""
        assessor = self.defence.assessor
        parts = [self._model.usage(), f"defence's judge: {used}" if assessor and (used := assessor.usage()) else ""]
        return "; ".join(part for part in parts if part)

    def release(self) -> None:
        """Free the model, and the defence's judge."""
        self._model.release()
        if self.defence.assessor:
            self.defence.assessor.release()


@dataclass
class _Progress:
    """A row on its way through the passes."""

    row: Row
    steps: Steps
    waiting: Ask | Consult | None = None
    replies: dict[int, Reply] = field(default_factory=dict)
    """{place in the Ask: reply}"""
    open: int = 0
    """Calls of this pass without a result so far."""
    failed: Unanswered | None = None
    told: list[Answer] = field(default_factory=list)
    """All replies so far."""
    labels: list[Label] = field(default_factory=list)
    calls: int = 0

    def defended(self, acted: bool = False, unclear: int = 0) -> Defended:
        return Defended(
            calls=len(self.told),
            prompt_tokens=_sum([one.prompt_tokens for one in self.told]),
            new_tokens=_sum([one.new_tokens for one in self.told]),
            judged=len(self.labels),
            judge_tokens=_sum([tokens for one in self.labels for tokens in (one.prompt_tokens, one.new_tokens)]),
            acted=acted,
            unclear=unclear,
        )


class _Passes:
    """One chunk of rows: passes until every row has its result."""

    def __init__(self, model: Model, defence: Defence):
        self._model, self._defence = model, defence
        self.failing: Unanswered | None = None
        """A row that was not sent any more, because the model's or the judge's server fails: further passes would too."""

    def results(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        active = [_Progress(row, self._defence.steps(row)) for row in rows]
        for one in active:
            yield from self._go_on(one, None)
        while active := [one for one in active if one.waiting is not None]:
            if self.failing:
                yield from (replace(self.failing, id=one.row.id) for one in active)
                return
            yield from self._ask([one for one in active if isinstance(one.waiting, Ask)])
            yield from self._consult([one for one in active if isinstance(one.waiting, Consult)])

    def _ask(self, some: Sequence[_Progress]) -> Iterator[Answer | Unanswered]:
        """One pass of the model over the rows that wait for it."""
        asked: dict[str, tuple[_Progress, int]] = {}
        rows: list[Row] = []
        for one in some:
            assert isinstance(one.waiting, Ask)
            one.open = len(one.waiting.rows)
            for place, row in enumerate(one.waiting.rows):
                name = call_id(one.row.id, one.calls)
                if name in asked:
                    raise UserError(
                        f"row {name}: two calls would have this id; rename the row in the benchmark's files"
                    )
                asked[name] = one, place
                rows.append(replace(row, id=name))
                one.calls += 1
        for answer in self._model.answers(rows):
            one, place = asked.pop(answer.id)
            if isinstance(answer, Unanswered):
                one.failed = one.failed or answer
                self.failing = self.failing or (None if answer.asked else answer)
            else:
                one.told.append(answer)
                one.replies[place] = _reply(answer, self._model.marks)
            one.open -= 1
            if not one.open:
                yield from self._go_on(one, [one.replies[i] for i in sorted(one.replies)])

    def _consult(self, some: Sequence[_Progress]) -> Iterator[Answer | Unanswered]:
        """One pass of the judge over the rows that wait for it."""
        consults = [one.waiting for one in some if isinstance(one.waiting, Consult)]
        if not consults:
            return
        assessor = self._defence.assessor
        assert assessor is not None, f"defence {self._defence.name} consults a judge and has none"
        for one, found in zip(some, assessor.labels(consults), strict=True):
            if isinstance(found, Unanswered):
                one.failed = found
                self.failing = self.failing or (None if found.asked else found)
            else:
                one.labels += found
            yield from self._go_on(one, found)

    def _go_on(self, one: _Progress, received: Any) -> Iterator[Answer | Unanswered]:
        """Hand a row what it waited for -> its result, if it has one now."""
        one.waiting, one.replies = None, {}
        if one.failed:
            which = f"in call {len(one.told) + 1} of the defence {self._defence.name}: " if one.told else ""
            reason = which + one.failed.reason
            yield replace(one.failed, id=one.row.id, reason=reason, defended=one.defended() if one.told else None)
            return
        try:
            one.waiting = one.steps.send(received)
        except StopIteration as end:
            yield _answer(one, end.value)


def _answer(one: _Progress, outcome: Outcome) -> Answer:
    seconds, defended = sum(answer.seconds for answer in one.told), one.defended(outcome.acted, outcome.unclear)
    if isinstance(outcome.response, str):
        return Answer(one.row.id, outcome.response, "stop", 0, seconds, defended=defended)
    return replace(outcome.response.answer, id=one.row.id, seconds=seconds, defended=defended)


def _reply(answer: Answer, marks: Marks) -> Reply:
    record = parted_together({answer.id: record_of(answer, marks)}, marks)[answer.id]
    return Reply(record["response"], answer)


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None

"""What comes back from whoever is asked, and the settings that it depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.answering.thoughts import AUTOMATIC, Marks, Parts, begins_inside, split
from align.errors import UserError
from align.settings import Generation

DRAWN = {"temperature": Generation.temperature, "top_p": Generation.top_p, "seed": Generation.seed}
"""Settings of generation that only drawn answers depend on, and their defaults."""


@dataclass
class Answer:
    """What a model said to one row."""

    id: str
    response: str
    """As it came, with its thought where that is not `thought`."""
    finish_reason: str
    """stop: the model ended its turn; length: it was cut at max_new_tokens."""
    new_tokens: int | None
    """None where a server does not say it."""
    seconds: float
    """The time that the row took; its share of that of its batch."""
    thought: str | None = None
    """What a server gives as the model's thought, in a field of its own."""


@dataclass
class Unanswered:
    """A row that a model behind an address gave no answer to."""

    id: str
    reason: str
    declined: bool = False
    """The server will not have this one request."""
    final: bool = False
    """Its own filter stopped it, and would again."""
    asked: bool = True
    """False where it was not tried, since the server had failed too often."""
    help: str = ""
    """What may be done about it."""
    unusable: bool = False
    """The row cannot be asked at all: its prompt is too long, an image has an impossible shape."""

    @property
    def told(self) -> str:
        """The reason and what may help."""
        return f"{self.reason}; {self.help}" if self.help else self.reason


def record_of(answer: Answer, marks: Marks) -> dict[str, Any]:
    """An answer as a line of a file: `response` is the answer alone, `thought` is there where the model thought (docs/formats.md)."""
    record: dict[str, Any] = {"id": answer.id, "response": answer.response, "finish_reason": answer.finish_reason}
    record |= {"new_tokens": answer.new_tokens, "seconds": round(answer.seconds, 4)}
    if answer.thought is None:
        return parted(record, marks)
    record |= {"thought": answer.thought, "apart": True}
    if answer.response and split(answer.response, AUTOMATIC) == Parts(answer.response):
        return record
    why = "its content has marks of a thought too" if answer.response else "the server gives a thought and no answer"
    return record | {"response": "", "raw": answer.response, "unfinished": why}


def parted(record: Mapping[str, Any], marks: Marks, inside: bool = False) -> dict[str, Any]:
    """A stored answer with its thought apart by these marks, whatever they were when it was stored: `raw` is what the model wrote.

    `inside`: other answers of this model begin inside a thought.
    """
    if record.get("apart"):
        return dict(record)
    whole = str(record.get("raw", record["response"]))
    found = split(whole, marks, inside or record["finish_reason"] == "length")
    kept = {key: value for key, value in record.items() if key not in ("thought", "raw", "unfinished")}
    if found == Parts(whole):
        return kept | {"response": whole}
    unfinished = {"unfinished": found.unfinished} if found.unfinished else {}
    return kept | {"response": found.answer, "thought": found.thought, "raw": whole} | unfinished


def parted_together(records: Mapping[str, Mapping[str, Any]], marks: Marks) -> dict[str, dict[str, Any]]:
    """`parted` for the answers of one model: where one of them begins inside a thought, the prompt opens it for all."""
    inside = marks.unseen and any(
        begins_inside(str(one.get("raw", one["response"])), marks) for one in records.values()
    )
    return {key: parted(record, marks, inside) for key, record in records.items()}


def how(generation: Generation) -> dict[str, Any]:
    """The settings of generation that answers depend on: neither the batch size nor the number of processes is one of them."""
    asked = {"do_sample": generation.do_sample, "max_new_tokens": generation.max_new_tokens}
    return asked | ({key: getattr(generation, key) for key in DRAWN} if generation.do_sample else {})


def check_sampling(generation: Generation) -> None:
    """Raises UserError for settings that nothing can be drawn with, and for those that change nothing while nothing is drawn."""
    if not (math.isfinite(generation.temperature) and generation.temperature > 0):
        raise UserError(
            f"generation.temperature={generation.temperature}: expected more than 0; greedy answers are generation.do_sample=false"
        )
    if not 0 < generation.top_p <= 1:
        raise UserError(f"generation.top_p={generation.top_p}: expected more than 0 and at most 1")
    if generation.do_sample:
        return
    for key, idle in DRAWN.items():
        if (value := getattr(generation, key)) != idle:
            raise UserError(
                f"generation.{key}={value} has no effect on greedy answers: add generation.do_sample=true, or remove it"
            )

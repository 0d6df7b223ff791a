"""Responses of a model, and the settings that they depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align.answering.thinking import thinking_of
from align.answering.thoughts import AUTOMATIC, MISPLACED, UNCERTAIN, Marks, Parts, begins_inside, split
from align.errors import UserError
from align.settings import Generation

DRAWN = {"temperature": Generation.temperature, "top_p": Generation.top_p, "seed": Generation.seed}
"""{setting that only affects sampled responses: default}"""

NO_RESPONSE = "the server returned a thought and no response"


@dataclass(frozen=True)
class Defended:
    """How a defence came to a response, and what that cost; failed calls are not counted."""

    calls: int
    """Calls of the model, the one that wrote the response included."""
    prompt_tokens: int | None
    """Tokens of all prompts; None if a server does not report them, as for the next fields."""
    new_tokens: int | None
    """Tokens that the model wrote in all calls."""
    judged: int
    """Texts that the defence's judge labelled."""
    judge_tokens: int | None
    """Tokens that its judge read and wrote."""
    acted: bool
    """Whether the defence replaced the response, refused, or chose another than the first."""
    unclear: int
    """Replies to second questions that are neither yes nor no."""


@dataclass
class Answer:
    """A model's response to one row."""

    id: str
    response: str
    """The unchanged text; it contains the thought unless `thought` does."""
    finish_reason: str
    """stop: the model ended its turn; length: the response was truncated at max_new_tokens."""
    new_tokens: int | None
    """None if a server does not report it."""
    seconds: float
    """The time for this row: its share of its batch's time."""
    thought: str | None = None
    """The model's thought, if the server returns it in a separate field."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, images included; None if a server does not report it."""
    defended: Defended | None = None
    """Of a model behind a defence (align/defences/)."""
    thought_cut: bool = False
    """Whether the thought's budget was spent, and its closing mark was forced."""


@dataclass
class Unanswered:
    """A row without a response."""

    id: str
    reason: str
    declined: bool = False
    """The server rejects this request."""
    final: bool = False
    """The server's filter rejected it, and would reject it again."""
    asked: bool = True
    """False if no request was sent, because the server had failed too often."""
    help: str = ""
    """What the user can do."""
    unusable: bool = False
    """The row cannot be sent to the model: its prompt is too long, or an image has an unsupported shape."""
    defended: Defended | None = None
    """The calls of a defence before the one that failed."""

    @property
    def told(self) -> str:
        """The reason and what the user can do."""
        return f"{self.reason}; {self.help}" if self.help else self.reason


def record_of(answer: Answer, marks: Marks) -> dict[str, Any]:
    """A response as a record of a file: `response` without the thought; `thought`, if there is one
    (docs/formats.md).
    """
    record: dict[str, Any] = {"id": answer.id, "response": answer.response, "finish_reason": answer.finish_reason}
    record |= {"new_tokens": answer.new_tokens, "seconds": round(answer.seconds, 4)}
    if answer.defended is not None:
        record["defence"] = asdict(answer.defended)
    record |= {"thought_cut": True} if answer.thought_cut else {}
    if answer.thought is None:
        return parted(record, marks)
    record |= {"thought": answer.thought, "apart": True}
    if answer.response and split(answer.response, AUTOMATIC) == Parts(answer.response):
        return record
    why = "its content has marks of a thought too" if answer.response else NO_RESPONSE
    return record | {"response": "", "raw": answer.response, "unfinished": why}


def unfinished_reason(record: Mapping[str, Any]) -> str:
    """The kind of reason why a stored response is unfinished (docs/formats.md)."""
    why = str(record["unfinished"])
    if record["finish_reason"] == "length":
        return "truncated"
    if why == NO_RESPONSE:
        return "no_response"
    return "misplaced_mark" if MISPLACED in why else "uncertain_end" if UNCERTAIN in why else "no_end"


def parted(record: Mapping[str, Any], marks: Marks, inside: bool = False) -> dict[str, Any]:
    """Split a stored response and its thought by these marks, even if it was stored with other
    marks; `raw` is the whole text.

    `inside`: other responses of this model begin inside a thought.
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
    """`parted` for all responses of one model: if one begins inside a thought, the prompt opens the thought for all."""
    inside = marks.unseen and any(
        begins_inside(str(one.get("raw", one["response"])), marks) for one in records.values()
    )
    return {key: parted(record, marks, inside) for key, record in records.items()}


def how(generation: Generation) -> dict[str, Any]:
    """The generation settings that responses depend on; these do not include the batch size and the
    number of processes.
    """
    asked: dict[str, Any] = {"do_sample": generation.do_sample, "max_new_tokens": generation.max_new_tokens}
    if thinking := thinking_of(generation):
        asked["thinking"] = str(thinking)
    return asked | ({key: getattr(generation, key) for key in DRAWN} if generation.do_sample else {})


def check_sampling(generation: Generation) -> None:
    """Raise UserError for invalid sampling settings, and for sampling settings with greedy decoding."""
    if not (math.isfinite(generation.temperature) and generation.temperature > 0):
        raise UserError(
            f"generation.temperature={generation.temperature}: expected more than 0; for greedy decoding use "
            "generation.do_sample=false"
        )
    if not 0 < generation.top_p <= 1:
        raise UserError(f"generation.top_p={generation.top_p}: expected more than 0 and at most 1")
    if generation.do_sample:
        return
    for key, idle in DRAWN.items():
        if (value := getattr(generation, key)) != idle:
            raise UserError(
                f"generation.{key}={value} has no effect on greedy decoding; add generation.do_sample=true, or remove "
                "it"
            )

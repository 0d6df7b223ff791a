"""A judge that is a model: what it is asked about an answer, who it is, and how its reply is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from align.answering.chat_server import Server, check_address, key_of
from align.answering.conversation import ChatModel, Failure, Reply, Request, Turn
from align.answering.thoughts import AUTOMATIC, MISPLACED, Marks, marks_of, split
from align.config.endpoints import SettingsOf
from align.console import Display
from align.data.images import pixel_hash
from align.errors import UserError
from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.judges import refusal_match
from align.evaluation.judges.prompts import Prompts, hash_of
from align.evaluation.judges.untrusted import unfenced
from align.evaluation.verdicts import SAFETY, Case, Verdict
from align.rows import Row
from align.settings import Address, JudgeSettings

AGAIN = "invalid"
"""What judge.again= may say."""


@dataclass(frozen=True)
class Form:
    """What makes a judge that judge, whoever plays it."""

    name: str
    version: str
    prompts: Prompts
    turns: Callable[[Prompts, Row, Any], tuple[Turn, ...]]
    """(prompts, item, response; None to a judge of requests) -> the conversation; its images are left out where it is to see none"""
    read: Callable[[str, Row], Verdict]
    """(reply, item) -> verdict; invalid, unparsable where it is not of the form that was asked for"""
    labels: Callable[[str], tuple[str, ...]]
    """kind of benchmark -> labels. Raises UserError for a kind of which the judge knows nothing"""
    max_new_tokens: int
    sees_image: bool
    schema: dict[str, Any] | None = None
    with_images: bool = True
    """Whether its turns hold the item's image, where the judge is to see it."""
    own_template: bool = False
    """Whether its task stands in the model's own chat template alone: any other model would merely go on with the conversation."""
    says: tuple[str, ...] = ("safe", "unsafe")
    """The labels that it gives to answers to harmful requests."""


@dataclass
class AskedJudge:
    """A form in the hands of a model."""

    form: Form
    settings: dict[str, Any]
    """What verdicts depend on beside the form: the model and how it is asked."""
    model: Callable[[], ChatModel]
    """Who is asked; made when the first answer is to be judged."""
    max_new_tokens: int
    sees_image: bool
    structured: bool
    address: Address | None = None
    """Where it is asked, if not here."""
    marks: Marks = AUTOMATIC
    """What its own thoughts stand between."""
    again: bool = False
    """Whether stored verdicts that it declined are asked for again."""
    section: str = "judge"
    """What its settings are called."""
    _model: ChatModel | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The form's."""
        return self.form.name

    @property
    def version(self) -> str:
        """The form's and, since another model is another judge, the model's."""
        return f"{self.form.version} ({self.settings['model']})"

    @property
    def says(self) -> tuple[str, ...]:
        """The labels that it gives to answers to harmful requests."""
        return self.form.says

    @property
    def prompt_hash(self) -> str:
        """Of all texts that the judge may be given."""
        return hash_of(self.form.prompts)

    @property
    def labels(self) -> Callable[[str], tuple[str, ...]]:
        """The form's."""
        return self.form.labels

    @property
    def uses(self) -> frozenset[str]:
        """The settings that it heeds."""
        where = [one.name for one in fields(Address)] if self.address else ["path", "dtype", "batch_size"]
        if self.form.schema and self.address:
            where.append("structured")
        if self.form.prompts:
            where.append("prompt")
        if any("{reason}" in text for text in self.form.prompts.values()):
            where.append("safety_reason")
        return frozenset(
            [*where, "max_new_tokens", "thought_marks", "again", *(["sees_image"] if self.form.with_images else [])]
        )

    def requests(self, cases: Sequence[Case]) -> Iterator[Request]:
        """What is asked about answers."""
        return map(self._request, cases)

    def key(self, case: Case) -> str:
        """The same for what is the same question to the same judge, images by their pixels; "" where an image cannot be read."""
        request = self._request(case)
        try:
            pixels = [pixel_hash(image, "") for turn in request.turns for image in turn.images]
        except UserError:
            return ""
        said = [[turn.role, turn.text, len(turn.images)] for turn in request.turns]
        # A reply about an answer is read by the item's role, so the same words about an item of another role are another question. A
        # request is what it is, whichever half of a twin asks it.
        role = None if case.response is None else case.row.role
        told = json.dumps([role, said, pixels, case.response])
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def verdicts(self, cases: Sequence[Case]) -> Iterator[tuple[str, Verdict]]:
        """(row id, verdict) of each answer, as they come. Raises UserError where a limit is reached or the model cannot be loaded."""
        of = {case.row.id: case for case in cases}
        for found in self._asked().replies(self.requests(cases)):
            verdict = self._failed(found) if isinstance(found, Failure) else self._read(found, of[found.id].row)
            yield found.id, verdict

    def announce(self, cases: Sequence[Case], what: str, display: Display) -> None:
        """Say what is about to be asked and, of an address, what it may cost."""
        model = self._asked()
        forecast = model.budget.forecast(list(self.requests(cases))) if isinstance(model, Server) else "asked here"
        display.say(f"{what} of {self.settings['model']}; {forecast}")

    def usage(self) -> str:
        """Calls, tokens and money so far."""
        return self._model.usage() if self._model else ""

    def release(self) -> None:
        """Let go of the model; it is made anew if it is asked again."""
        if self._model:
            self._model.release()
        self._model = None

    def _asked(self) -> ChatModel:
        self._model = self._model or self.model()
        return self._model

    def _request(self, case: Case) -> Request:
        turns = self.form.turns(self.form.prompts, case.row, case.response)
        if not self.sees_image:
            turns = tuple(replace(turn, images=()) for turn in turns)
        return Request(case.row.id, turns, self.max_new_tokens, self.form.schema if self.structured else None)

    def _read(self, reply: Reply, row: Row) -> Verdict:
        tokens: dict[str, Any] = {"prompt_tokens": reply.prompt_tokens, "new_tokens": reply.new_tokens}
        invalid = partial(Verdict, "invalid", raw=reply.text, **tokens)
        if reply.refused:
            return invalid(reason="declined", detail="the server says that the judge refused")
        if reply.finish_reason == "length":
            detail = f"cut at {self.max_new_tokens} tokens; a higher {self.section}.max_new_tokens= leaves more room"
            return invalid(reason="truncated", detail=detail, again=True)
        said = split(reply.text, self.marks, first_only=True)
        if said.unfinished:
            return invalid(reason="unparsable", detail=self._of_thoughts(said.unfinished), again=True)
        verdict = replace(self.form.read(said.answer, row), raw=reply.text, **tokens)
        if verdict.verdict == "invalid" and refusal_match.judge(row, said.answer[:200]).verdict == "refusal":
            return invalid(reason="declined", detail="the judge's own words")
        return replace(verdict, again=verdict.verdict == "invalid")

    def _of_thoughts(self, why: str) -> str:
        if MISPLACED not in why or self.marks.given:
            return why
        return f"{why}; if the judge's chat template opens the thought, {self.section}.thought_marks=<opening>,<closing> says so"

    def _failed(self, failure: Failure) -> Verdict:
        again = failure.reason != "declined" or not failure.final
        return Verdict(
            "invalid", failure.reason, detail=failure.detail, again=again, asked=failure.asked, help=failure.help
        )


def unparsable(detail: str) -> Verdict:
    """The verdict on a reply that is not of the form that was asked for."""
    return Verdict("invalid", "unparsable", detail=detail)


def one_word(reply: str, verdicts: dict[str, str]) -> Verdict:
    """A reply that is one of a few words, in quotes or with a full stop perhaps."""
    word = unfenced(reply).strip("\"'.").lower()
    return Verdict(verdicts[word]) if word in verdicts else unparsable(f"neither {' nor '.join(verdicts)}")


def safe_or_unsafe(judge: str) -> Callable[[str], tuple[str, ...]]:
    """Labels of a judge that knows two, on harmful requests alone."""

    def labels(kind: str) -> tuple[str, ...]:
        if kind not in SAFETY_KINDS:
            raise UserError(
                f"judge {judge} says whether an answer is safe, which tells nothing of a set of kind {kind}: there, answering is right. "
                f"Give another judge for it, such as vlsbench"
            )
        return SAFETY

    return labels


def playing(form: Form, settings: JudgeSettings) -> AskedJudge:
    """A form with the model that the settings name. Raises UserError where they name none, or both."""
    section = settings.section if isinstance(settings, SettingsOf) else "judge"
    check_address(settings, section)
    key_of(settings, section)  # that it is absent should be known before hours of training and answering
    marks = marks_of(settings.thought_marks, f"{section}.thought_marks", unseen=settings.base_url is not None)
    if settings.again not in (None, AGAIN):
        raise UserError(f"{section}.again={settings.again}: expected {AGAIN}, or null")
    if (settings.base_url is None) == (settings.path is None):
        given = "both are given" if settings.path else "neither is given"
        raise UserError(
            f"judge {form.name}: {given}: judge.base_url= with judge.model= (an OpenAI-compatible address), or judge.path= (a model "
            f"loaded here); of several judges judge.each.{form.name}.base_url= and so on. judge=refusal_match needs no model and measures "
            f"refusal alone; judge=none stores the answers and judges nothing"
        )
    if settings.path:
        from align.answering.chat_local import LocalChat, check_local, identity_of

        check_local(settings.path, settings.dtype, settings.batch_size)
        identity: dict[str, Any] = {"model": settings.path, "dtype": settings.dtype} | identity_of(settings.path)
        model: Callable[[], ChatModel] = partial(LocalChat, settings.path, settings.dtype, settings.batch_size, marks)
    else:
        identity = {"model": str(settings.model)} | ({"extra": settings.extra} if settings.extra else {})
        model = partial(Server, settings, section)
    room = settings.max_new_tokens or form.max_new_tokens
    sees_image = form.sees_image if settings.sees_image is None else settings.sees_image
    structured = settings.structured and form.schema is not None and settings.base_url is not None
    identity |= {"temperature": 0, "max_new_tokens": room, "sees_image": sees_image, "structured": structured}
    if marks != AUTOMATIC:
        identity["thought_marks"] = list(settings.thought_marks or [])
    address, again = settings if settings.base_url else None, settings.again == AGAIN
    return AskedJudge(form, identity, model, room, sees_image, structured, address, marks, again, section)

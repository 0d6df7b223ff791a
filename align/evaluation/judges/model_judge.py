"""Judges that are models: prompt, model and parser of the reply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from align.answering.address import check_address, key_of
from align.answering.chat_server import Server
from align.answering.conversation import ChatModel, Failure, Reply, Request, Turn
from align.answering.thoughts import AUTOMATIC, MISPLACED, Marks, marks_of, split
from align.config.endpoints import SettingsOf
from align.console import Display
from align.data.images import pixel_hash
from align.errors import UserError
from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.judges import refusal_match
from align.evaluation.judges.prompts import Prompts, hash_of
from align.evaluation.judges.thoughts import ANSWER, judged_text, note_of, sees_of
from align.evaluation.judges.untrusted import unfenced
from align.evaluation.verdicts import SAFETY, Case, Verdict
from align.rows import Row
from align.settings import EndpointSettings, JudgeSettings

AGAIN = "invalid"
"""Value of judge.again=."""


@dataclass(frozen=True)
class Form:
    """The definition of a judge, independent of its model."""

    name: str
    version: str
    prompts: Prompts
    turns: Callable[[Prompts, Row, Any], tuple[Turn, ...]]
    """(prompts, item, response; None for a judge of requests) -> conversation; images are removed
    later if the judge does not see images"""
    read: Callable[[str, Row], Verdict]
    """(reply, item) -> verdict; invalid and unparsable for a reply in another form"""
    labels: Callable[[str], tuple[str, ...]]
    """kind of benchmark -> labels. Raises UserError for a kind that the judge cannot judge"""
    max_new_tokens: int
    sees_image: bool
    schema: dict[str, Any] | None = None
    with_images: bool = True
    """Whether its conversation can have the item's image."""
    own_template: bool = False
    """Whether the task is only in the model's own chat template.

    Other models would continue the chat.
    """
    says: tuple[str, ...] = ("safe", "unsafe")
    """Labels for responses to harmful requests."""


@dataclass
class AskedJudge:
    """A judge: a form with a model."""

    form: Form
    settings: dict[str, Any]
    """Settings on which verdicts depend, in addition to the form: model and generation."""
    model: Callable[[], ChatModel]
    """Makes the model; called when the first response is judged."""
    max_new_tokens: int
    sees_image: bool
    structured: bool
    address: EndpointSettings | None = None
    """Its endpoint; None for a model that is loaded here."""
    marks: Marks = AUTOMATIC
    """Marks around its thoughts."""
    again: bool = False
    """Whether verdicts that it declined are requested again."""
    section: str = "judge"
    """Section of its settings."""
    _model: ChatModel | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name of the form; a judge that sees thoughts is another judge."""
        seen = sees_of(self)
        return self.form.name if seen == ANSWER else f"{self.form.name}_{seen}"

    @property
    def version(self) -> str:
        """Version of the form, with the model: another model is another judge."""
        return f"{self.form.version} ({self.settings['model']})"

    @property
    def says(self) -> tuple[str, ...]:
        """Labels for responses to harmful requests."""
        return self.form.says

    @property
    def prompt_hash(self) -> str:
        """Hash of all prompts of the judge."""
        return hash_of(self.form.prompts)

    @property
    def labels(self) -> Callable[[str], tuple[str, ...]]:
        """Labels of the form, by kind of benchmark."""
        return self.form.labels

    @property
    def uses(self) -> frozenset[str]:
        """Settings that have an effect on this judge."""
        where = ["path", "dtype", "batch_size"]
        if self.address:
            where = [one.name for one in fields(EndpointSettings)]
        if self.settings.get("engine"):
            where = ["serve", "vllm", "concurrency", "timeout", "retries", "extra"]
        if self.form.schema and "concurrency" in where:
            where.append("structured")
        if self.form.prompts:
            where.append("prompt")
        if any("{reason}" in text for text in self.form.prompts.values()):
            where.append("safety_reason")
        return frozenset(
            [*where, "max_new_tokens", "thought_marks", "again", *(["sees_image"] if self.form.with_images else [])]
        )

    def requests(self, cases: Sequence[Case]) -> Iterator[Request]:
        """One request for each case."""
        return map(self._request, cases)

    def key(self, case: Case) -> str:
        """Hash of the request, with images by their pixels; "" if an image cannot be read."""
        request = self._request(case)
        try:
            pixels = [pixel_hash(image, "") for turn in request.turns for image in turn.images]
        except UserError:
            return ""
        said = [[turn.role, turn.text, len(turn.images)] for turn in request.turns]
        # Verdicts on responses depend on the item's role; verdicts on requests do not (twins share
        # a request).
        role = None if case.response is None else case.row.role
        told = json.dumps([role, said, pixels, case.response])
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def verdicts(self, cases: Sequence[Case]) -> Iterator[tuple[str, Verdict]]:
        """Yield (row id, verdict) of each response.

        Raises UserError if a limit is reached or the model cannot be loaded.
        """
        of = {case.row.id: case for case in cases}
        for found in self._asked().replies(self.requests(cases)):
            verdict = self._failed(found) if isinstance(found, Failure) else self._read(found, of[found.id].row)
            yield found.id, verdict

    def announce(self, cases: Sequence[Case], what: str, display: Display) -> None:
        """Report the number of requests and, for an endpoint, their possible cost."""
        model = self._asked()
        forecast = model.budget.forecast(list(self.requests(cases))) if isinstance(model, Server) else "loaded here"
        display.say(f"{what} of {self.settings['model']}; {forecast}")

    def usage(self) -> str:
        """Calls, tokens and cost so far."""
        return self._model.usage() if self._model else ""

    def release(self) -> None:
        """Free the model; it is loaded again on the next request."""
        if self._model:
            self._model.release()
        self._model = None

    def _asked(self) -> ChatModel:
        self._model = self._model or self.model()
        return self._model

    def _request(self, case: Case) -> Request:
        turns = self.form.turns(self.form.prompts, case.row, judged_text(case, fences=not self.form.own_template))
        if (note := note_of(case, sees_of(self))) and not self.form.own_template:
            turns = (*turns[:-1], replace(turns[-1], text=f"{note}\n\n{turns[-1].text}"))
        if not self.sees_image:
            turns = tuple(replace(turn, images=()) for turn in turns)
        return Request(case.row.id, turns, self.max_new_tokens, self.form.schema if self.structured else None)

    def _read(self, reply: Reply, row: Row) -> Verdict:
        tokens: dict[str, Any] = {"prompt_tokens": reply.prompt_tokens, "new_tokens": reply.new_tokens}
        invalid = partial(Verdict, "invalid", raw=reply.text, **tokens)
        if reply.refused:
            return invalid(reason="declined", detail="the endpoint reports a refusal of the judge")
        if reply.finish_reason == "length":
            detail = f"truncated at {self.max_new_tokens} tokens. Give a higher {self.section}.max_new_tokens="
            return invalid(reason="truncated", detail=detail, again=True)
        said = split(reply.text, self.marks, first_only=True)
        if said.unfinished:
            return invalid(reason="unparsable", detail=self._of_thoughts(said.unfinished), again=True)
        verdict = replace(self.form.read(said.answer, row), raw=reply.text, **tokens)
        if verdict.verdict == "invalid" and refusal_match.judge(row, said.answer[:200]).verdict == "refusal":
            return invalid(reason="declined", detail="the judge's reply is a refusal")
        return replace(verdict, again=verdict.verdict == "invalid")

    def _of_thoughts(self, why: str) -> str:
        if MISPLACED not in why or self.marks.given:
            return why
        return f"{why}. If the judge's chat template opens the thought, set {self.section}.thought_marks=<opening>,<closing>"

    def _failed(self, failure: Failure) -> Verdict:
        again = failure.reason != "declined" or not failure.final
        return Verdict(
            "invalid", failure.reason, detail=failure.detail, again=again, asked=failure.asked, help=failure.help
        )


def unparsable(detail: str) -> Verdict:
    """The verdict for a reply in another form than requested."""
    return Verdict("invalid", "unparsable", detail=detail)


def one_word(reply: str, verdicts: dict[str, str]) -> Verdict:
    """Read a reply of one word, possibly in quotes or with a full stop."""
    word = unfenced(reply).strip("\"'.").lower()
    return Verdict(verdicts[word]) if word in verdicts else unparsable(f"neither {' nor '.join(verdicts)}")


def safe_or_unsafe(judge: str) -> Callable[[str], tuple[str, ...]]:
    """Labels of a judge with two labels, for harmful requests only."""

    def labels(kind: str) -> tuple[str, ...]:
        if kind not in SAFETY_KINDS:
            raise UserError(
                f"judge {judge} judges whether a response is safe, but a benchmark of kind {kind} needs a judge of "
                "correct responses. Give another judge for it, such as vlsbench."
            )
        return SAFETY

    return labels


def playing(form: Form, settings: JudgeSettings) -> AskedJudge:
    """A form with the model of the settings. Raises UserError for no model, or for two."""
    section = settings.section if isinstance(settings, SettingsOf) else "judge"
    check_address(settings, section)
    key_of(settings, section)  # a missing key should be known before hours of training
    marks = marks_of(settings.thought_marks, f"{section}.thought_marks", unseen=settings.path is None)
    if settings.again not in (None, AGAIN):
        raise UserError(f"{section}.again={settings.again}: expected {AGAIN}, or null")
    given = [key for key in ("base_url", "path", "serve") if getattr(settings, key) is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "no model is given"
        several = (
            f"; for one of several judges, judge.each.{form.name}.base_url= and so on. judge=refusal_match needs no "
            "model and measures only refusal; judge=none stores responses without judging"
        )
        raise UserError(
            f"judge {form.name}: {found}. Give {section}.base_url= with {section}.model= (an OpenAI-compatible "
            f"endpoint), {section}.path= (a model loaded here), or {section}.serve= (a model that vLLM serves here)"
            f"{several if section.startswith('judge') else ''}."
        )
    if settings.path:
        from align.answering.chat_local import LocalChat, check_local, identity_of

        check_local(settings.path, settings.dtype, settings.batch_size, section)
        identity: dict[str, Any] = {"model": settings.path, "dtype": settings.dtype} | identity_of(settings.path)
        model: Callable[[], ChatModel] = partial(
            LocalChat, settings.path, settings.dtype, settings.batch_size, marks, section
        )
    elif settings.serve:
        from align.answering.vllm.served_chat import ServedChat, check_served

        extra = {"extra": settings.extra} if settings.extra else {}
        identity = check_served(settings.serve, settings.vllm, section) | extra
        model = partial(ServedChat, settings, section)
    else:
        identity = {"model": str(settings.model)} | ({"extra": settings.extra} if settings.extra else {})
        model = partial(Server, settings, section)
    room = settings.max_new_tokens or form.max_new_tokens
    sees_image = form.sees_image if settings.sees_image is None else settings.sees_image
    structured = settings.structured and form.schema is not None and settings.path is None
    identity |= {"temperature": 0, "max_new_tokens": room, "sees_image": sees_image, "structured": structured}
    if marks != AUTOMATIC:
        identity["thought_marks"] = list(settings.thought_marks or [])
    address, again = settings if settings.base_url else None, settings.again == AGAIN
    return AskedJudge(form, identity, model, room, sees_image, structured, address, marks, again, section)

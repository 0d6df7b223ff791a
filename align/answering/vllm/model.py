"""A model on this machine whose responses vLLM generates."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from align.answering.answer import Answer, Unanswered
from align.answering.generate import longest_first
from align.answering.local_model import OnThisMachine, devices
from align.answering.sampling import seed_of
from align.answering.thinking import thinking_of
from align.answering.vllm.agreement import Agreement, Reference, agreement_of, reference_of, rows_to_check
from align.answering.vllm.asking import PLACES, refuse_other_prompt, request_of, start
from align.answering.vllm.environment import environments, interpreter, versions_of
from align.answering.vllm.process import Children, Reply, Request
from align.answering.vllm.served import Served, served
from align.errors import UserError
from align.models.loading import ModelSource
from align.rows import Row
from align.settings import Generation

LOG = logging.getLogger(__name__)

ROOM = 4096
"""A maximum sequence length up to this is given to vLLM as it is; a longer one only as far as prompts need it."""


class VllmModel(OnThisMachine):
    """A model that vLLM loads at the first request, in one or several child processes, and keeps until `release`."""

    def __init__(self, source: ModelSource, generation: Generation):
        """Raises UserError for an absent model, an unknown family, and an environment without vLLM."""
        super().__init__(source, generation)
        if not self.known.family.known:
            raise UserError(
                f"{PLACES}: prompts of the family {self.known.family.model_type} are not known here, so vLLM's cannot "
                "be compared with them; use generation.engine=transformers"
            )
        thinking = thinking_of(generation)
        if thinking is not None and thinking.budget is not None:
            raise UserError(
                f"generation.thinking={generation.thinking}: a budget of thoughts needs generation.engine=transformers"
            )
        self._settings = generation.vllm
        self._python = interpreter(self._settings)
        # Responses of one engine are never mixed with those of another.
        self.identity["engine"] = {"name": "vllm"} | versions_of(self._python)
        self._children: Children | None = None
        self._served: Served | None = None
        self._reference: Reference | None = None
        self._length = self._images = 0
        """The maximum sequence length, and the maximum number of images of a row."""
        self.agreement: Agreement | None = None

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One result per row, as they finish. Raises UserError, also if a child process ends or hangs."""
        ordered = longest_first(self._renderer, rows, self.known.positions)
        yield from ordered.unusable
        if not ordered.rows:
            return
        of = {row.id: row for row in ordered.rows}
        children = self._ready(ordered.rows, max(ordered.lengths.values()))
        for reply in children.ask(self._requests(ordered.rows, ordered.lengths)):
            yield self._answer(of[reply.id], reply)

    def release(self) -> None:
        """End vLLM. Another request starts it again."""
        if self._children is not None:
            self._children.close()
        if self._served is not None:
            self._served.remove()
        self._children = self._served = None

    def _ready(self, rows: Sequence[Row], longest: int) -> Children:
        """vLLM, started and compared with transformers. Raises UserError."""
        # A prompt that fills the context is cut by the context, as in transformers. One token of room is for scoring.
        needed = min(self.known.positions or longest, longest + self._generation.max_new_tokens + 1)
        images = max([1, *(len(row.images) for row in rows)])
        fits = needed <= self._length and images <= self._images
        if fits and self._children is not None and not self._children.closed:
            return self._children
        self.release()
        if self._reference is None:
            checked = rows_to_check(rows, self._settings.check_rows)
            self._reference = reference_of(self.source, devices(1)[0], checked, self._generation)
            gc.collect()
            torch.cuda.empty_cache()
        self._length = min(self.known.positions or needed, max(needed, ROOM))
        self._images = images
        try:
            self._served = served(self.known, self.source)
            environment = environments(self._settings)
            self._children = start(self.known, self._served, self._settings, self._length, self._images, environment)
            self.agreement = self._compared(self._children, self._reference)
        except BaseException:
            self.release()
            raise
        LOG.info(str(self.agreement))
        return self._children

    def _compared(self, children: Children, reference: Reference) -> Agreement:
        """Score transformers' responses, and let vLLM respond to the same rows. Raises UserError."""
        scores, tokens = [], []
        for scored in reference.scored:
            prompt = self._renderer.render(scored.row).prompt_ids
            kept = scored.tokens[: self._length - len(prompt) - 1]
            request = self._request(scored.row, {"max_tokens": 1, "prompt_logprobs": 0, "temperature": 0.0})
            request = replace(request, prompt_ids=[*request.prompt_ids, *kept], scored=len(kept))
            # One row at a time: with an adapter on a CPU, vLLM mixes up the log-probabilities of several prompts.
            (reply,) = children.ask([request])
            refuse_other_prompt(reply, [*prompt, *kept])
            scores.append(reply.scores or [])
            (reply,) = children.ask([self._request(scored.row, self._sampling(scored.row, len(prompt), greedy=True))])
            tokens.append(reply.tokens)
        return agreement_of(reference, scores, tokens, self._settings.tolerance)

    def _requests(self, rows: Sequence[Row], lengths: dict[str, int]) -> Iterator[Request]:
        for row in rows:
            yield self._request(row, self._sampling(row, lengths[row.id]))

    def _request(self, row: Row, sampling: dict[str, Any]) -> Request:
        adapter = self._served.adapter if self._served else None
        return request_of(self._renderer, row, sampling, {"id": 1, "path": adapter} if adapter else None)

    def _sampling(self, row: Row, length: int, greedy: bool = False) -> dict[str, Any]:
        """Arguments of vllm.SamplingParams for a row with a prompt of this many tokens."""
        assert self._reference is not None
        room = (self.known.positions or math.inf) - length  # vLLM would shorten it without a word
        most = int(min(self._generation.max_new_tokens, room))
        drawn = {"temperature": 0.0}
        if self._generation.do_sample and not greedy:
            seed = seed_of(self._generation.seed, row.id) >> 1  # vLLM takes 63 bits
            drawn = {"temperature": self._generation.temperature, "top_p": self._generation.top_p, "seed": seed}
        return {"max_tokens": most, "stop_token_ids": self._reference.ends, **drawn}

    def _answer(self, row: Row, reply: Reply) -> Answer | Unanswered:
        if reply.refused is not None:
            # Rows that are too long are known before, so this is no fault of the row: it stays open.
            return Unanswered(row.id, f"vLLM: {reply.refused}")
        refuse_other_prompt(reply, self._renderer.render(row).prompt_ids)
        finished = reply.finish_reason == "stop"
        kept = reply.tokens[:-1] if finished else reply.tokens
        text = self._hidden.text(self._renderer.processor.tokenizer, kept)
        reason = "stop" if finished else "length"
        return Answer(row.id, text, reason, len(kept), reply.seconds, prompt_tokens=len(reply.prompt_ids))

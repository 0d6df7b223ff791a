"""Sample responses with vLLM: a child process next to each training process, which gets the adapter of each round.

The log-probabilities that training uses are those of the training model. vLLM's are compared with
them: if they differ, the responses are not samples of the policy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from align.answering.generate import Written, end_of_turn_ids
from align.answering.sampling import seed_of
from align.answering.vllm.agreement import TOLERANCE, TOLERANCES
from align.answering.vllm.asking import refuse_other_prompt, request_of, start
from align.answering.vllm.environment import environment_of_process, interpreter, versions_of
from align.answering.vllm.process import Children
from align.answering.vllm.served import Served, least_rank, served_base, why_merged
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import UserError
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.sampling import Request, Sampling, never_sampled
from align.models.adapters import POLICY
from align.models.loading import Loaded
from align.rows import Row
from align.settings import Vllm

BANNED = -100.0
"""Added to the logits of tokens that a policy must not write; the lowest value that vLLM accepts."""


@dataclass
class VllmSampler:
    """Samples the responses of a round with vLLM."""

    known: Loaded
    """The base model."""
    settings: Vllm
    local_rank: int
    longest: int
    """Maximum tokens of prompt and response."""
    images: int
    """Maximum number of images of a row."""
    largest: float = 0.0
    """The largest difference of a log-probability in the present round."""
    _children: Children | None = None
    _served: Served | None = None
    _folder: Path | None = None
    _log_probs: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        versions_of(interpreter(self.settings), "train.rollout_engine=vllm")

    def sample(
        self, model: Any, renderer: Renderer, requests: Sequence[Request], sampling: Sampling, round_number: int
    ) -> Iterator[tuple[Request, Written]]:
        """(Request, response) in the order in which they finish. Raises UserError."""
        adapter = {"id": round_number + 1, "path": str(self._saved(model, round_number))}  # a new id each time
        children = self._ready(model)
        named = {request.named(round_number): request for request in requests}
        rows = [replace(request.row, id=name) for name, request in named.items()]
        ends = end_of_turn_ids(model, renderer)
        drawn = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_completion_length,
            "stop_token_ids": ends,
            "logit_bias": dict.fromkeys(never_sampled(renderer), BANNED),
            "logprobs": 0,
        }
        of = {row.id: row for row in rows}
        self._log_probs = {}
        for reply in children.ask(self._asked(renderer, rows, drawn, sampling.seed, adapter)):
            request = named[reply.id]
            if reply.refused is not None:
                raise UserError(f"row {request.row.id}: no response can be sampled: vLLM: {reply.refused}")
            rendered = renderer.render(of[reply.id])
            refuse_other_prompt(reply, rendered.prompt_ids)
            self._log_probs[request.number, request.sample] = reply.logprobs or []
            yield request, Written(rendered, reply.tokens, reply.finish_reason == "stop", reply.seconds)

    def compare(self, written: Sequence[tuple[Rollout, Rendered]], dtype: torch.dtype) -> None:
        """Compare vLLM's log-probabilities of rollouts with those of the training model. Raises UserError."""
        for rollout, rendered in written:
            self._compare(rollout, rendered.id, dtype)

    def _compare(self, rollout: Rollout, row_id: str, dtype: torch.dtype) -> None:
        own = torch.tensor(self._log_probs.pop((rollout.row, rollout.sample)))
        gap = (own - rollout.log_probs.float().cpu()).abs().max().item() if len(own) else 0.0
        self.largest = max(self.largest, gap)
        given = self.settings.tolerance
        accepted = TOLERANCES.get(dtype, TOLERANCE) if given is None else given
        if not gap <= accepted:
            raise UserError(
                f"train.rollout_engine=vllm: vLLM's log-probability of a sampled token differs by {gap:.2g} from the "
                f"training model's in row {row_id}, more than {accepted:g} (generation.vllm.tolerance=), so the response "
                "is no sample of the policy. No step was taken on it. Use train.rollout_engine=transformers"
            )

    def close(self) -> None:
        """End vLLM, and remove its files."""
        if self._children is not None:
            self._children.close()
        if self._served is not None:
            self._served.remove()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._children = self._served = self._folder = None

    def _asked(
        self, renderer: Renderer, rows: Sequence[Row], drawn: dict[str, Any], seed: int, adapter: dict[str, Any]
    ) -> Iterator[Any]:
        for row in rows:
            yield request_of(renderer, row, drawn | {"seed": seed_of(seed, row.id) >> 1}, adapter)

    def _ready(self, model: Any) -> Children:
        if self._children is None or self._children.closed:
            rank = least_rank(model.peft_config[POLICY].r)
            self._served = served_base(self.known, rank=rank)
            environment = environment_of_process(self.settings, self.local_rank)
            self._children = start(self.known, self._served, self.settings, self.longest, self.images, [environment])
        self.largest = 0.0
        return self._children

    def _saved(self, model: Any, round_number: int) -> Path:
        """The policy's adapter in a folder of this round; that of the round before is removed."""
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="vsil-align-rollouts-"))
        for former in self._folder.iterdir():
            shutil.rmtree(former)
        folder = self._folder / f"round-{round_number}"
        model.save_pretrained(folder, selected_adapters=[POLICY])
        if why := why_merged(folder, self.known.family):
            raise UserError(
                f"train.rollout_engine=vllm: vLLM cannot apply the policy's adapter: {why}; use "
                "train.rollout_engine=transformers"
            )
        return folder

"""Rewards of stored responses: a reward model scores every response of an evaluation.

Written to rewards.<name>.jsonl in the folder of each benchmark, one line at a time: {id,
response_hash, reward}. The hash is of the request, the response and the reward model's weights, so a
stored reward is used again only for exactly these.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from align.answering.generate import load_on
from align.answering.local_model import devices
from align.batches.collators import Prompts
from align.batches.rendered import Rendered
from align.console import Display
from align.data.pixels import pixels_of
from align.data.views import READS_IMAGES, show
from align.errors import BadRow, UserError
from align.evaluation.answers import Answered
from align.evaluation.metrics import cluster_interval
from align.fast.supervised_head import Scalar, SupervisedHead
from align.files import append_jsonl, keep_lines, open_jsonl
from align.methods.rollouts.scoring import last_values, reward_batch
from align.models.loading import ModelSource
from align.models.scalar_head import read_facts, read_head
from align.rewards.model import weights_at
from align.rows import ROLES, Row
from align.run_folder import RunFolder

HEAD = "reward"


@dataclass(frozen=True)
class Case:
    """A response to score, as the reward model sees it."""

    row: Row
    response: str
    finished: bool
    response_hash: str


class RewardModel:
    """A trained reward model: base, adapter and scalar head.

    It is loaded at the first response without a reward.
    """

    def __init__(self, path: str, batch_size: int):
        """Raises UserError unless `path` is the run folder of a reward model with the same base."""
        run, given = RunFolder(Path(path).resolve()), f"reward={path}"
        if not run.manifest_file.is_file():
            raise UserError(
                f"{given}: not a run folder; give the run folder of a run with method=reward, for example of align "
                "train recipe=mm_reward"
            )
        weights = weights_at(given, path)
        run.refuse_replaced_base()
        config = run.config()
        self.name, self.view, self._batch_size = run.path.name, config.view, batch_size
        self._source = ModelSource(replace(config.model, adapter=None), str(weights))
        self._known = self._source.load_without_weights()
        if read_facts(str(weights)).get("rendering") != self._known.renderer.identity:
            raise UserError(
                f"{given}: its chat template, tokenizer or image processor was replaced after it was trained; restore "
                "it"
            )
        self._model: Any = None
        self.lines: list[str] = []
        """A line on the rewards of each benchmark that was scored."""

    def score(self, answered: Answered, display: Display) -> None:
        """Score the responses of a benchmark that have no stored reward. Raises UserError."""
        path = answered.folder / f"rewards.{self.name}.jsonl"
        cases = self._cases(answered)
        kept, file = open_jsonl(path)
        stored = {line["id"]: line for line in kept}
        done = {
            case.row.id: stored[case.row.id]
            for case in cases
            if stored.get(case.row.id, {}).get("response_hash") == case.response_hash
        }
        waiting = [case for case in cases if case.row.id not in done]
        with file:
            for case, reward in self._rewards(waiting):
                record = {"id": case.row.id, "response_hash": case.response_hash, "reward": reward}
                append_jsonl(file, record)
                done[case.row.id] = record
                display(f"{answered.chosen.name}: rewards", len(done), len(cases))
        keep_lines(path, [done[case.row.id] for case in cases if case.row.id in done])
        self.lines += self._summary(answered, {row_id: float(line["reward"]) for row_id, line in done.items()})

    def release(self) -> None:
        """Free the model and its device memory."""
        self._model = None
        gc.collect()
        torch.cuda.empty_cache()

    def _cases(self, answered: Answered) -> list[Case]:
        """The responses of a benchmark, in the view that the reward model was trained on."""
        items = answered.chosen.items
        others = [row for row in items if row.images]
        rows = [show(row, self.view, others) for row in items]
        pixels = pixels_of(rows) if self.view in READS_IMAGES else [[]] * len(rows)
        cases = []
        for row, of_row in zip(rows, pixels, strict=True):
            record = answered.responses[row.id]
            response, finished = record["response"].strip(), record["finish_reason"] != "length"
            if response:
                prompt = self._known.renderer.prompt_text(row)
                digest = _hash(self._known.weights, prompt, *of_row, response, str(finished))
                cases.append(Case(row, response, finished, digest))
        return cases

    def _rewards(self, cases: Sequence[Case]) -> Iterator[tuple[Case, float]]:
        """(Case, reward) of every case that the model can process, long responses first."""
        if cases and self._model is None:
            self._load()
        ordered = sorted(cases, key=lambda case: -len(case.response))
        collator = Prompts(self._known.renderer, None, None)
        for start in range(0, len(ordered), self._batch_size):
            chunk = [(case, it) for case in ordered[start : start + self._batch_size] if (it := self._rendered(case))]
            if not chunk:
                continue
            batch = {
                key: value.to(self._model.device) if torch.is_tensor(value) else value
                for key, value in reward_batch(collator, [rendered for _, rendered in chunk]).items()
            }
            with torch.no_grad():
                output = self._model(**batch, use_cache=False, fused_lm_head=True, scalar=HEAD, log_probs=False)
            yield from zip((case for case, _ in chunk), last_values(output).tolist(), strict=True)

    def _rendered(self, case: Case) -> Rendered | None:
        """A response after its prompt; None if the model cannot process it.

        As in rollouts, a response that was cut has no end of turn.
        """
        renderer = self._known.renderer
        try:
            rendered = renderer.render(case.row, case.response)
        except BadRow:
            return None
        end = renderer.processor.tokenizer.convert_tokens_to_ids(renderer.end_of_turn)
        if not case.finished and rendered.answer_ids[-1] == end:
            rendered = replace(rendered, answer_ids=rendered.answer_ids[:-1])
        fits = self._known.positions is None or rendered.length < self._known.positions
        return rendered if fits and rendered.answer_ids else None

    def _load(self) -> None:
        device = devices(1)[0]
        model = load_on(device, self._source).model.eval()
        inner = model.get_base_model()
        head = SupervisedHead(inner)
        scalar = read_head(str(self._source.adapter)).to(device)
        head.scalars[HEAD] = Scalar(contextlib.nullcontext, scalar)
        self._model = inner

    def _summary(self, answered: Answered, rewards: dict[str, float]) -> list[str]:
        """Lines with mean, interval and n of each role, and the number of rows without a reward."""
        lines = []
        for role in ROLES:
            ids = [row.id for row in answered.chosen.items if row.role == role]
            known = [row_id for row_id in ids if row_id in rewards]
            absent = f"; without a reward: {len(ids) - len(known)}" if len(known) < len(ids) else ""
            if ids:
                shown = _mean_line([rewards[row_id] for row_id in known], [answered.clusters[it] for it in known])
                lines.append(f"{answered.chosen.name}, {role} rows: reward by {self.name}: {shown}{absent}")
        return lines


def _mean_line(values: Sequence[float], clusters: Sequence[str]) -> str:
    if not values:
        return "no response was scored"
    low, high = cluster_interval(values, clusters, lambda some: sum(some) / len(some))
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"mean {sum(values) / len(values):.3f}{interval} n={len(values)}"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]

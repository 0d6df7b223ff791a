"""The base of methods that learn from sampled responses: rounds of rollouts, and batches of them.

At the start of a round every process samples its share of the responses with the present policy,
and measures them: log-probabilities of policy and reference model, values, rewards. All processes
then have all rollouts of the round, and take the batches of its steps from them. So the number of
processes, the size of a forward pass and the order of rows change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object

from align.batches.collators import Prompts
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import UserError
from align.families import ENCODES_IMAGES
from align.fast.supervised_head import Scalar
from align.methods.rollouts import report, rollout
from align.methods.rollouts.advantages import next_log_multiplier
from align.methods.rollouts.measuring import Measurement, adapter_of, on_device
from align.methods.rollouts.order import InRounds, Numbers
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.sampling import Request, Sampling, sample
from align.methods.rollouts.settings import plan_of
from align.methods.rollouts.totals import add_up, ask_functions
from align.methods.trainer import RowsTrainer
from align.models.adapters import POLICY, Adapters
from align.models.scalar_head import add_adapter_with_head, hold_in_float32, parameters_of
from align.rows import Row
from align.run_folder import step_of

CRITIC = "critic"
"""The name of the critic's adapter and scalar head."""
CHECKPOINT_FILE = "rollouts.safetensors"


class RolloutTrainer(RowsTrainer):
    """Mixin, placed before a trl trainer: trains on responses that the policy itself sampled.

    A method is a subclass with `passes`, `credit` and `batch`, and `samples` if there are several.
    """

    needs_reference = True
    rewarded = True
    critic: str | None = None
    """The name of the scalar head whose values are measured, if the method has a critic."""
    trl_collates = True
    """Whether trl's trainer takes a collator."""

    def __init__(self, *args: Any, data_collator: Any, **kwargs: Any):
        super().__init__(*args, **({"data_collator": data_collator} if self.trl_collates else {}), **kwargs)
        self.data_collator = data_collator
        self.rounds: dict[int, Rollout] = {}
        """The rollouts of the present round, by number."""
        self.present_round = -1
        self.stop: str | None = None
        self.facts: dict[str, Any] = {}
        """What is saved in a checkpoint in addition to the rollouts."""
        model = self.accelerator.unwrap_model(self.model)
        for reward in self.parts.rewards.all:
            if reward.folder is not None:
                head = add_adapter_with_head(model, adapter_of(reward), reward.folder, trainable=False)
                self._register(adapter_of(reward), head)
        self._add_critic(model)
        self.adapters = Adapters(model)
        self.adapters.without_dropout()
        self._keeps_adapters = False
        """Whether checkpointed layers are recomputed with their own adapters yet."""
        hold_in_float32(model, POLICY)
        self._encode_for_each_adapter(model)
        self.adapters.activate(POLICY)

    def _encode_for_each_adapter(self, model: Any) -> None:
        """Reuse no image features if a reward model or critic changes the vision tower or projector."""
        family = self.data_collator.renderer.family
        own = [adapter_of(reward) for reward in self.parts.rewards.all if reward.folder] + [CRITIC]
        names = [name for adapter in own for name in parameters_of(model, adapter)]
        if any(family.tower_of(name) in ENCODES_IMAGES for name in names):
            self.head.images.reuse.remembers = self.head.images.reuse.frozen = False
            self.data_collator.names_images = False

    def _register(self, adapter: str, head: torch.nn.Module) -> None:
        self.head.scalars[adapter] = Scalar(lambda: self.adapters.use(adapter), head)

    def _add_critic(self, model: Any) -> None:
        """Add a trained critic; a method without one adds nothing."""

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> Prompts:
        """The collator of prompts; responses are added when they are sampled."""
        return Prompts(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    @property
    def samples(self) -> int:
        """Responses for each prompt."""
        return 1

    @property
    def passes(self) -> int:
        """Passes over a round."""
        raise NotImplementedError

    def credit(self, rollouts: Sequence[Rollout]) -> None:
        """Set the advantages of all rollouts of a round, in the order (row, sample)."""
        raise NotImplementedError

    def batch(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered]) -> dict[str, Any]:
        """The batch of a forward pass."""
        raise NotImplementedError

    @property
    def in_rounds(self) -> InRounds:
        """The order of the rounds."""
        return cast(InRounds, self.order)

    # The data loader: numbers of rollouts, replaced by batches when a step takes them.

    def _order(self, global_batch_size: int, seed: int) -> InRounds:
        plan = plan_of(self.args, global_batch_size, self.samples, self.passes)
        rows = len(self.train_dataset)
        order = InRounds(rows, global_batch_size, seed, lambda: self.state.global_step, plan)
        if order.prompts > rows:
            raise UserError(
                f"a round samples responses to {order.prompts} prompts, but there are {rows} rows; lower "
                "train.generation_batch_size (by default global_batch_size), or add rows"
            )
        return order

    def get_train_dataloader(self) -> Any:
        """A loader of the numbers of rollouts, in the order of the rounds."""
        collator, self.data_collator = self.data_collator, torch.tensor
        try:
            return self._get_dataloader(  # type: ignore[attr-defined]
                dataset=Numbers(len(self.train_dataset) * self.samples),
                description="Training",
                batch_size=self.args.per_device_train_batch_size,
                sampler_fn=lambda _: self.order,
                is_training=True,
            )
        finally:
            self.data_collator = collator

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
        """The batches of a step, after its round was sampled."""
        return super().get_batch_samples(map(self._filled, epoch_iterator), *args, **kwargs)

    def _filled(self, numbers: torch.Tensor) -> dict[str, Any]:
        if not self._keeps_adapters:  # transformers has switched gradient checkpointing on by now
            self.adapters.keep_in_recomputation(self.accelerator.unwrap_model(self.model))
            self._keeps_adapters = True
        if self.present_round != self.in_rounds.round():
            self._sample_round(self.in_rounds.round())
        rollouts = [self.rounds[number] for number in numbers.tolist()]
        rendered = self.rendered(rollouts)
        batch = self.batch(rollouts, rendered) | {
            "row_index": torch.tensor([one.row for one in rollouts]),
            "supervised_tokens": torch.tensor([len(one.tokens) for one in rollouts]),
        }
        return on_device(batch, self.accelerator.device)

    def row(self, number: int) -> Row:
        """The row with this number in the training data."""
        return self.parts.rows[number]

    def rendered(self, rollouts: Sequence[Rollout]) -> list[Rendered]:
        """Prompt and response of each rollout; rollouts of one prompt render it once."""
        prompts = {
            number: self.data_collator.renderer.render(self.row(number)) for number in {one.row for one in rollouts}
        }
        return [replace(prompts[one.row], answer_ids=one.tokens) for one in rollouts]

    # A round: sample, measure, reward, credit.

    def _sample_round(self, number: int) -> None:
        rows = list(dict.fromkeys(self.in_rounds.prompts_of(number)))
        processes, here = self.accelerator.num_processes, self.accelerator.process_index
        mine = self._sampled(number, rows[here::processes])
        every = mine if processes == 1 else gather_object(mine)
        rollouts = sorted(every, key=lambda one: (rows.index(one.row), one.sample))
        ask_functions(self.parts.rewards, rollouts, [self.row(one.row) for one in rollouts], self.accelerator)
        roles = self.train_dataset["role"]
        for one in rollouts:
            add_up(one, roles[one.row], self.parts.rewards, self.args.missing_eos_penalty)
        self._refuse_unscored(rollouts)
        self.credit(rollouts)
        self.rounds = {one.row * self.samples + one.sample: one for one in rollouts}
        self.present_round = number
        self._report(rollouts)

    def _sampled(self, number: int, rows: Sequence[int]) -> list[Rollout]:
        """Sample and measure the share of a round that this process takes."""
        args, seed = self.args, self.args.seed if self.args.data_seed is None else self.args.data_seed
        size = args.rollout_batch_size or args.per_device_train_batch_size
        sampling = Sampling(args.temperature, args.top_p, args.top_k, args.max_completion_length, size, seed)
        renderer = self.data_collator.renderer
        model = self.accelerator.unwrap_model(self.model)
        requests = [Request(row, i, self.row(row)) for row in rows for i in range(self.samples)]
        written, engine = [], self.parts.rollout_engine
        draw = sample if engine is None else engine.sample
        with self.accelerator.autocast():
            for request, one in draw(model, renderer, requests, sampling, number):
                ids = one.tokens[:-1] if one.finished else one.tokens
                text = renderer.processor.tokenizer.decode(ids, skip_special_tokens=True)
                found = Rollout(request.number, request.sample, one.tokens, text, one.finished, torch.empty(0))
                written.append((found, replace(one.rendered, id=request.row.id, answer_ids=one.tokens)))
        rollouts = [one for one, _ in written]
        self._measurement(model).measure(rollouts, [rendered for _, rendered in written], size)
        if engine is not None:
            engine.compare(written, torch.bfloat16 if args.bf16 else model.dtype)
        return rollouts

    def _measurement(self, model: Any) -> Measurement:
        models = [reward for reward in self.parts.rewards.all if reward.folder is not None]
        device, collator = self.accelerator.device, self.data_collator
        return Measurement(model, self.adapters, collator, device, self.critic, self.asks_reference, models)

    @property
    def asks_reference(self) -> bool:
        """Whether the reference model's log-probabilities are needed."""
        return True

    def _refuse_unscored(self, rollouts: Sequence[Rollout]) -> None:
        """Raises UserError, before any step is taken, if too many responses have no reward."""
        missing = [one for one in rollouts if one.score is None]
        if len(missing) <= self.args.max_unscored * len(rollouts) and len(missing) < len(rollouts):
            return
        lacking = sorted({name for one in missing for name, value in one.rewards.items() if value is None})
        ids = ", ".join(dict.fromkeys(self.train_dataset[one.row]["id"] for one in missing[:5]))
        step = self.state.global_step
        if self.args.save_strategy != "no" and step and not Path(self.args.output_dir, f"checkpoint-{step}").exists():
            self._save_checkpoint(self.model, trial=None)
        raise UserError(
            f"step {step}: {len(missing)} of {len(rollouts)} sampled responses have no reward "
            f"({', '.join(lacking)} gave none; rows {ids}, ...), more than train.max_unscored={self.args.max_unscored:g} "
            "allows. No step was taken on them. When the reward works again, start the same command to resume"
        )

    def next_multiplier(self, scored: Sequence[Rollout]) -> float:
        """Safe RLHF: the multiplier of the cost after this round's step of gradient ascent."""
        args = self.args
        before = self.facts.get("log_multiplier", math.log(args.multiplier_init))
        mean = sum(float(one.cost or 0.0) for one in scored) / len(scored)
        self.facts["log_multiplier"] = next_log_multiplier(before, mean, args.cost_limit, args.multiplier_lr)
        return math.exp(self.facts["log_multiplier"])

    # What a reader sees of a round.

    def _summary(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        return report.summary(rollouts, self.train_dataset["role"], self.parts.rewards, self.facts)

    def _report(self, rollouts: Sequence[Rollout]) -> None:
        summary = self._summary(rollouts)
        for name, value in summary.items():
            self._metrics["train"][name].append(value)  # type: ignore[attr-defined]
        if self.parts.rollout_engine is not None:
            self._metrics["train"]["rollouts/vllm_difference"].append(self.parts.rollout_engine.largest)  # type: ignore[attr-defined]
        self.stop = report.reason_to_stop(summary, self.args)
        step, every = self.state.global_step, self.args.sample_steps
        is_due = step == 0 or step // every != (step - self.in_rounds.plan.steps) // every
        if self.accelerator.is_main_process and self.parts.samples_file and is_due:
            chosen = rollouts[: self.args.samples]
            report.write_samples(self.parts.samples_file, step, chosen, [self.row(one.row) for one in chosen])

    def beyond_bound(self) -> str | None:
        """Why training stops after this step: a bound on the rollouts of its round was passed."""
        return self.stop

    # Checkpoints: the rollouts of a round belong to the policy that sampled them.

    def save_state(self, folder: Path) -> None:
        """Save the rollouts of the present round in a checkpoint; every process has all of them."""
        super().save_state(folder)
        if self.accelerator.is_main_process:
            facts = self.facts | {"round": self.present_round}
            rollout.save(folder / CHECKPOINT_FILE, list(self.rounds.values()), facts)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train; a run that resumes continues with the rollouts of its checkpoint."""
        if resume_from_checkpoint is not None:
            rollouts, facts = rollout.load(Path(resume_from_checkpoint, CHECKPOINT_FILE))
            self.present_round = facts.pop("round")
            self.facts = facts
            self.rounds = {one.row * self.samples + one.sample: one for one in rollouts}
            self.stop = report.reason_to_stop(self._summary(rollouts), self.args)
        if self.parts.samples_file and self.accelerator.is_main_process:
            before = 0 if resume_from_checkpoint is None else step_of(Path(resume_from_checkpoint))
            report.keep_samples(self.parts.samples_file, before)
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]
        finally:
            if self.parts.rollout_engine is not None:
                self.parts.rollout_engine.close()

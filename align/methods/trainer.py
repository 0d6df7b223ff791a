"""The base of all methods: trl passes rows to the collator unchanged, and each step is checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value

from align.errors import BadRow, UserError
from align.fast.supervised_head import SupervisedHead
from align.interruption import begin_worker
from align.methods.arguments import GROUPED
from align.methods.checkpoints import WholeCheckpoints
from align.methods.method import RunParts
from align.methods.sampler import WholeBatches
from align.models.adapters import POLICY
from align.rows import Row
from align.settings import RunConfig

TEXTS = tuple(field.name for field in fields(Row) if field.name not in ("images", "history", "places", "columns"))
PLACES = List(Value("int64"))
FEATURES = Features(
    {name: Value("string") for name in TEXTS}
    | {
        "images": List({"path": Value("string"), "bytes": Value("binary"), "inside": Value("string")}),
        "history": List({"role": Value("string"), "text": Value("string"), "places": PLACES, "trained": Value("bool")}),
        "places": PLACES,
        "index": Value("int64"),
    }
)


def to_dataset(rows: Sequence[Row]) -> Dataset:
    """Rows as the `datasets.Dataset` that trl requires; `index` identifies the rows of a step."""
    return Dataset.from_list([row.to_dict() | {"index": i} for i, row in enumerate(rows)], features=FEATURES)


def refuse_lacking(row: Row, fields: Sequence[str], method: str) -> None:
    """Raises BadRow for a row without an answer that a method needs."""
    for field in fields:
        if not (getattr(row, field) or "").strip():
            generated = "harmful_response" if field in ("rejected", "harmful_response") else "response"
            part = row.id.partition("/")[0]
            raise BadRow(
                f"row {row.id} has no `{field}`, which {method} needs; add it to the source, or generate it: "
                f"data.{part}.{generated}=generate",
                "no_answer",
            )


def refuse_same(row: Row, wanted: str, unwanted: str) -> None:
    """Raises BadRow if two answers differ at most in outer white space.

    There is nothing to learn from such a pair.
    """
    first, second = getattr(row, wanted), getattr(row, unwanted)
    if first.strip() == second.strip():
        raise BadRow(f"row {row.id}: `{wanted}` and `{unwanted}` are the same answer; remove the row", "same_answers")


def refuse_dropout(arguments: Any, config: RunConfig, method: str) -> None:
    """Raises UserError for an adapter's dropout that the method switches off."""
    if arguments.disable_dropout and config.lora and config.lora.lora_dropout:
        raise UserError(
            f"lora.lora_dropout={config.lora.lora_dropout} would have no effect: trl's {method} switches dropout off; "
            "set it to 0, or set train.disable_dropout=false"
        )


class RowsTrainer(WholeCheckpoints):
    """Mixin, placed before a trl trainer: the defaults of a `Method` (align/methods/method.py).

    trl does not prepare the dataset, every column is kept, and the row order depends only on the
    seed. The output head computes only the supervised positions. The rows of each step are
    recorded, and a loss that is not finite stops the run.
    """

    inert: dict[str, str] = {}
    needs_reference = False
    passes_without_gradients = 1
    rewarded = False
    """Whether the method learns from rewards (`rewards.*`, `cost.*`)."""
    storable: str | None = "it has no reference model"
    args: Any
    model: Any
    accelerator: Any
    data_collator: Any
    state: Any
    train_dataset: Dataset
    _signature_columns: list[str]

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that this method cannot train on."""

    @classmethod
    def check_rows(cls, rows: Sequence[Row]) -> None:
        """Raises UserError for rows that are valid one by one and cannot be trained on together."""

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for settings that are not valid for the method or have no effect.

        Nothing is loaded yet.
        """

    def __init__(self, *args: Any, parts: RunParts = RunParts(), **kwargs: Any):  # noqa: B008 (it is frozen)
        self.parts = parts
        self._taken: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)
        # Qwen2.5-VL, Qwen3-VL and Gemma 3 say that their own loss does not divide by the tokens of a
        # step. Ours does, or accumulation and the number of processes would change the result.
        self.model_accepts_loss_kwargs = True
        model = self.accelerator.unwrap_model(self.model)
        reuse = parts.finish_model(self.model)
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        self.prepare_head(inner)
        self.head = SupervisedHead(inner, reuse)
        # With an adapter the reference model shares the base and its head; full fine-tuning has a
        # copy with its own head.
        copy = getattr(self, "ref_model", None)
        self.reference_head = (
            self.head if copy is None else SupervisedHead(self.accelerator.unwrap_model(copy), policy=self.head)
        )

    def prepare_head(self, model: Any) -> None:
        """Change trl's fused output head of a model, before it is computed at supervised positions alone."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = self.train_dataset.column_names

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> WholeBatches:
        return self.order

    @cached_property
    def order(self) -> WholeBatches:
        """The order in which rows are trained on."""
        share = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        order = self._order(share * self.accelerator.num_processes, seed)
        if self.args.train_sampling_strategy == GROUPED:
            order.lengths = [self.data_collator.about_as_long(record) for record in self.train_dataset]
        return order

    def _order(self, global_batch_size: int, seed: int) -> WholeBatches:
        return WholeBatches(len(self.train_dataset), global_batch_size, seed, lambda: self.state.global_step)

    def beyond_bound(self) -> str | None:
        """Why training stops after this step; None to continue.

        A method without a bound always continues.
        """
        return None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        # peft saves every adapter. Only the trained one is kept: the frozen copy is rebuilt from the
        # adapter that the run continues, reward models are other runs', and a critic is part of the
        # checkpoints.
        for name in getattr(self.accelerator.unwrap_model(self.model), "peft_config", {}):
            if name != POLICY:
                shutil.rmtree(Path(output_dir or self.args.output_dir, name), ignore_errors=True)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute trl's loss.

        Raises UserError with the row ids of the batch if the loss is not finite.
        """
        index = inputs.pop("row_index")
        self._taken.append(torch.stack([index, inputs.pop("supervised_tokens")], dim=1))
        result = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        # All processes stop together: one that continued would wait for the others until the
        # launcher ends it.
        losses, rows = self.accelerator.gather(loss.detach()[None]), self.accelerator.gather(index[None])
        if not (finite := torch.isfinite(losses)).all():
            ids = ", ".join(self.train_dataset[int(i)]["id"] for i in rows[~finite].flatten())
            raise UserError(
                f"the loss is {losses[~finite][0].item()}; rows of this batch: {ids}. Lower train.learning_rate, or "
                "check these rows"
            )
        return result

    def get_train_dataloader(self) -> Any:
        """Build trl's data loader.

        Its workers ignore signals to stop: the parent process decides when they end.
        """
        loader = super().get_train_dataloader()  # type: ignore[misc]
        if self.args.dataloader_num_workers:
            loader.worker_init_fn = partial(begin_worker, loader.worker_init_fn)
        return loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
        """The batches of a step. Times how long the step waits for them."""
        if self.parts.timer is not None:
            epoch_iterator = self.parts.timer.timed(epoch_iterator)
        return super().get_batch_samples(epoch_iterator, *args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log trl's line, plus how this process spent its time since the last line."""
        if self.parts.timer is not None and "loss" in logs:
            heads = dict.fromkeys((self.head, self.reference_head))
            passes = [one for head in heads for one in head.passes]
            for head in heads:
                head.passes.clear()
            logs |= self.parts.timer.line(passes)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def taken(self) -> tuple[list[int], int]:
        """Row numbers, in order, and supervised tokens of the step that ended, over all processes.

        Every process must call it.
        """
        here = torch.stack(self._taken)  # (accumulated, batch, 2)
        self._taken = []
        everywhere = self.accelerator.gather(here[None])  # (processes, accumulated, batch, 2)
        # Processes take batches in turns, so transposing restores the order in which the sampler
        # dealt the rows.
        rows, tokens = everywhere.transpose(0, 1).reshape(-1, 2).T.tolist()
        return rows, sum(tokens)

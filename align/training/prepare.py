"""The order of a start: settings, then what is there, then rows, then the model. Nothing that costs comes before what may stop it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from align.catalog import METHODS, resolve
from align.config import Composed, to_dict
from align.data import answers
from align.data.assembly import TrainingData, training_data
from align.data.conflicts import conflicts_of
from align.errors import UserError
from align.evaluation.selection import without_overlap
from align.methods.launcher import world_size
from align.needs import missing, missing_model, refuse_missing
from align.rows import Row
from align.run_folder import RunFolder, run_folder
from align.screen import Report, progress
from align.training.row_checks import Bounds, Checker, Fault, Measured, by_kind, described, faults_of, measured, refuse

PLACEHOLDER = "(an answer that is not generated yet)"
"""What rows are checked with that will get an answer from a model."""
MAX_UNKNOWN = 0.1
"""Share of supervised tokens that the tokenizer may not know: above it the model learns to write `<unk>`."""


def refuse_settings(composed: Composed, run: RunFolder) -> None:
    """Raises UserError for settings of training or of the method that cannot be; no file of data is opened."""
    from align.models.trainable import check_trainable

    config = composed.config
    if config.on_bad_row not in ("error", "drop"):
        raise UserError(f"{composed.origin('on_bad_row')}: on_bad_row={config.on_bad_row}: expected error or drop")
    check_trainable(composed)
    _arguments(composed, run, world_size())


def _arguments(composed: Composed, run: RunFolder, processes: int) -> Any:
    """The run's training arguments, to be looked at. Raises UserError."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from align.methods.arguments import training_arguments

    arguments = training_arguments(composed, resolve("method", composed.config.method, METHODS), run, processes)
    # Under ZeRO-3 they also divide every model that is loaded from now on, even one that only answers.
    unset_hf_deepspeed_config()
    return arguments


def checked_data(composed: Composed, run: RunFolder, ask: answers.Ask, report: Report | None = None) -> TrainingData:
    """The rows that a run trains on, each checked before an answer is generated or a model loaded. Raises UserError."""
    config = composed.config
    refuse_missing(config)
    data = training_data(config)
    with _display(report) as shown:
        faults, found = check_rows(composed, data.answered(config, _placeholders), run, shown)
        data = _without(composed, data, faults)
    answered = data.answered(config, ask)
    with _display(report) as shown:
        if answered.facts != data.facts:  # there are generated answers now
            faults, found = check_rows(composed, answered, run, shown)
            answered = _without(composed, answered, faults)
        answered.facts += _unknown_tokens(found)
        answered.look_at_pictures(shown)
    unreadable = [Fault(row, "image_unreadable", str(error)) for row, error in answered.unreadable()]
    data = without_overlap(config, _without(composed, answered, unreadable))
    data.facts += conflicts_of(data.rows, data.pixels, config.allow_label_conflict)
    return data


def look_over(composed: Composed) -> str:
    """Check every row of a run that is not started, where its data and its model's files are here -> a line. Raises UserError."""
    config = composed.config
    if not config.model.path:
        return f"rows are checked when the run starts, since {config.model.name} is built then"
    if lines := [*missing(config), *missing_model(config, strict=True)]:
        return f"rows are not checked: {lines[0]}"
    data = training_data(config)
    processes = config.num_processes or world_size()
    with _display(None) as shown:
        answered = data.answered(config, _placeholders)
        faults, _ = check_rows(composed, answered, run_folder(config), shown, processes)
    if config.on_bad_row == "error":
        refuse(faults, len(data.rows))
    return f"{len(data.rows):,} rows checked" + (
        f", {len(faults)} of them left out (on_bad_row: drop)" if faults else ""
    )


def _placeholders(rows: Sequence[Row]) -> tuple[list[str], str]:
    return [PLACEHOLDER] * len(rows), "are generated when the run starts"


def check_rows(
    composed: Composed,
    data: TrainingData,
    run: RunFolder,
    report: Report | None = None,
    processes: int | None = None,
) -> tuple[list[Fault], list[Measured | Fault]]:
    """(The rows that cannot be trained on, what every row measures). Raises UserError where rows do not go together."""
    from align.models.loading import load_without_weights

    config = composed.config
    method = resolve("method", config.method, METHODS)
    method.check_rows(data.rows)
    loaded = load_without_weights(config.model)
    arguments = _arguments(composed, run, processes or world_size())
    checker = Checker(method.collator(loaded.renderer, arguments), method.check_row)
    name = json.dumps([to_dict(part) for part in config.data.values()], sort_keys=True)
    found = measured(checker, data.rows, f"{config.method} {name}", report)
    return faults_of(data.rows, found, Bounds(arguments.max_length, loaded.positions)), found


def _unknown_tokens(found: Sequence[Measured | Fault]) -> list[str]:
    """A line on answers that the tokenizer cannot write. Raises UserError where the model would learn to write `<unk>`."""
    measured_rows = [of for of in found if isinstance(of, Measured)]
    supervised, unknown = (sum(getattr(of, what) for of in measured_rows) for what in ("supervised", "unknown"))
    if not unknown:
        return []
    having = sum(of.unknown > 0 for of in measured_rows)
    line = f"{unknown:,} of {supervised:,} supervised tokens ({unknown / supervised:.1%}, in {having} rows) are unknown to the tokenizer"
    if unknown > MAX_UNKNOWN * supervised:
        raise UserError(
            f"{line}: the model would learn to write its unknown token; choose a model whose tokenizer knows these words"
        )
    return [line]


def _without(composed: Composed, data: TrainingData, faults: Sequence[Fault]) -> TrainingData:
    """The data without rows that cannot be used. Raises UserError unless the run says on_bad_row=drop."""
    if not faults:
        return data
    if composed.config.on_bad_row == "error":
        refuse(faults, len(data.rows))
    kinds = {kind: [fault.row for fault in of] for kind, of in by_kind(faults).items()}
    return data.without_faults(kinds, [f"left out (on_bad_row: drop): {line}" for line in described(faults)])


@contextmanager
def _display(report: Report | None) -> Iterator[Report]:
    """The caller's display, or one of its own on the first process of a launch."""
    silent = int(os.environ.get("RANK", 0)) > 0
    with nullcontext(report) if report else nullcontext(lambda *_: None) if silent else progress() as shown:
        yield shown

"""The order of the checks before a run: settings, files, rows, then the model.

Cheap checks come first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from align.config.merge import Composed
from align.config.registry import METHODS, resolve
from align.config.values import to_dict
from align.console import Report, progress
from align.data import answers
from align.data.assembly import TrainingData, own_rows, refuse_blind, shown
from align.data.conflicts import conflicts_of
from align.data.pixels import hashes_of, readable
from align.errors import UserError
from align.evaluation.selection import without_overlap
from align.methods.distributed import world_size
from align.methods.passes import refuse_shared_passes
from align.rows import Row
from align.run_folder import RunFolder, run_folder
from align.settings import RunConfig
from align.training.preflight import missing, missing_model, refuse_impossible_thinking, refuse_missing
from align.training.row_checks import Bounds, Checker, Fault, Measured, by_kind, described, faults_of, measured, refuse

PLACEHOLDER = "."
"""A temporary answer with which rows are checked before a model generates their answer."""
MAX_UNKNOWN = 0.1
"""Maximum share of supervised tokens that are unknown to the tokenizer. Above it, the model
learns to write `<unk>`."""


def refuse_settings(composed: Composed, run: RunFolder) -> None:
    """Raises UserError for training or method settings that are not valid.

    No data file is opened.
    """
    from align.models.trainable import check_trainable

    _check_on_bad_row(composed)
    check_trainable(composed)
    _arguments(composed, run, world_size())


def check_rewards(config: RunConfig) -> dict[str, str]:
    """{name of a reward model: sixteen hex digits of its weights}.

    Raises UserError for rewards that cannot be computed or have no effect, before data are read.
    """
    if (config.rewards or config.cost) and not resolve("method", config.method, METHODS).rewarded:
        raise UserError(
            f"method={config.method} learns from no reward, so rewards.* and cost.* would have no effect; remove them, "
            "or use method=ppo or method=grpo"
        )
    from align.models.loading import load_without_weights
    from align.models.weights import fingerprint_of
    from align.rewards.build import rewards_of

    if not config.rewards and config.cost is None:
        return {}
    rewards = rewards_of(config, load_without_weights(config.model).renderer.identity)
    return {reward.name: fingerprint_of([reward.folder]) for reward in rewards.all if reward.folder}


def _check_on_bad_row(composed: Composed) -> None:
    if (chosen := composed.config.on_bad_row) not in ("error", "drop"):
        raise UserError(f"{composed.origin('on_bad_row')}: on_bad_row={chosen}: expected error or drop")


def _arguments(composed: Composed, run: RunFolder, processes: int) -> Any:
    """The run's training arguments, only to check them. Raises UserError."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from align.methods.arguments import training_arguments

    arguments = training_arguments(composed, resolve("method", composed.config.method, METHODS), run, processes)
    # Under ZeRO-3 these arguments would divide every model that is loaded later, also one that only
    # generates answers.
    unset_hf_deepspeed_config()
    return arguments


def checked_data(composed: Composed, run: RunFolder, ask: answers.Ask, report: Report | None = None) -> TrainingData:
    """The rows that a run trains on, checked before an answer is generated or a model is loaded.

    Raises UserError.
    """
    config = composed.config
    refuse_missing(config)
    with _display(report) as display:
        data, lengths = _usable(composed, run, display)
    answered = data.answered(config, ask)
    with _display(report) as display:
        if answers.GENERATE in {of for part in config.data.values() for of in (part.response, part.harmful_response)}:
            faults, lengths = check_rows(composed, answered, run, display)
            answered = _without(composed, answered, faults)
        answered.verify_images(display)
    unreadable = [Fault(row, "image_unreadable", str(error)) for row, error in answered.unreadable()]
    data = without_overlap(config, _without(composed, answered, unreadable))
    # Rows may have been dropped, so conditions on all rows are checked again.
    refuse_blind(config, data.rows)
    resolve("method", config.method, METHODS).check_rows(data.rows)
    data.facts += _unknown_tokens([lengths[row.id] for row in data.rows])
    data.facts += conflicts_of(data.rows, data.pixels, config.allow_label_conflict)
    return data


def _usable(composed: Composed, run: RunFolder, report: Report) -> tuple[TrainingData, dict[str, Measured]]:
    """The rows that can be rendered, and their measured lengths. Raises UserError."""
    config = composed.config
    own = own_rows(config)
    faults = own_image_faults(config, own.rows, report)
    if faults and config.on_bad_row == "error":
        refuse(faults, len(own.rows))
    data = shown(config, own.without({fault.row for fault in faults}))
    data = data.with_dropped(_by_row(faults), _dropped_facts(faults))
    faults, lengths = check_rows(composed, data.answered(config, _placeholders), run, report)
    return _without(composed, data, faults), lengths


def own_image_faults(config: RunConfig, rows: Sequence[Row], report: Report | None = None) -> list[Fault]:
    """Rows whose own image cannot be used, or that have no caption, if a view replaces the image.

    A shuffled view shows a row the image of another row. Without this check, the row that shows the
    bad image would be dropped, not the row that the image belongs to. In the controlled track every
    arm has the same items, also an arm that shows no images. Raises UserError.
    """
    from align.models.loading import load_without_weights

    uncaptioned = [row for row in rows if row.view == "caption" and row.images and row.caption is None]
    faults = [
        Fault(row.id, "no_caption", f"row {row.id} has no `caption`, which view=caption shows") for row in uncaptioned
    ]
    if config.track != "controlled" and not any(row.view in ("shuffled", "blank") for row in rows):
        return faults
    with_images = [row for row in rows if row.images]
    found, renderer = hashes_of(with_images, report), load_without_weights(config.model).renderer
    for row in with_images:
        try:
            for image in row.images:
                readable(found[image])
                renderer.check_shape(image, f"row {row.id}")
        except UserError as error:
            faults.append(Fault(row.id, getattr(error, "kind", "image_unreadable"), str(error)))
    return faults


def look_over(composed: Composed) -> str:
    """Check every row of a run without starting it, if its data and model files are here -> a line.

    Raises UserError.
    """
    _check_on_bad_row(composed)
    config = composed.config
    if not config.model.path:
        return f"rows are checked when the run starts, because {config.model.name} is built then"
    if lines := [*missing(config), *missing_model(config, strict=True)]:
        return f"rows are not checked: {lines[0]}"
    own = own_rows(config)
    with _display(None) as display:
        bad = own_image_faults(config, own.rows, display)
        data = shown(config, own.without({fault.row for fault in bad})).answered(config, _placeholders)
        faults, _ = check_rows(composed, data, run_folder(config), display, config.num_processes or world_size())
    faults = [*bad, *faults]
    if config.on_bad_row == "error":
        refuse(faults, len(own.rows))
    return f"{len(own.rows):,} rows checked" + (f", {len(faults)} of them dropped (on_bad_row: drop)" if faults else "")


def _placeholders(rows: Sequence[Row]) -> tuple[list[str], str]:
    return [PLACEHOLDER] * len(rows), "are generated when the run starts"


def check_rows(
    composed: Composed,
    data: TrainingData,
    run: RunFolder,
    report: Report | None = None,
    processes: int | None = None,
) -> tuple[list[Fault], dict[str, Measured]]:
    """(Rows that cannot be trained on, measured lengths of the others).

    Raises UserError for rows that cannot be trained on together.
    """
    from align.models.loading import load_without_weights

    config = composed.config
    method = resolve("method", config.method, METHODS)
    method.check_rows(data.rows)
    loaded = load_without_weights(config.model)
    if config.evaluate_afterwards:
        refuse_impossible_thinking(config, loaded.processor.chat_template)
    arguments = _arguments(composed, run, processes or world_size())
    refuse_shared_passes(config, loaded.family, arguments, data.rows)
    checker = Checker(method.collator(loaded.renderer, arguments), method.check_row)
    name = json.dumps([to_dict(part) for part in config.data.values()], sort_keys=True)
    found = measured(checker, data.rows, f"{config.method} {name}", report)
    lengths = {row.id: of for row, of in zip(data.rows, found, strict=True) if isinstance(of, Measured)}
    # A sampled response, and the token after it that a reward model needs, follow the prompt.
    response = arguments.max_completion_length + 1 if method.rewarded else 0
    positions = None if loaded.positions is None else loaded.positions - response
    if positions is not None and positions < 1:
        raise UserError(
            f"{composed.origin('train.max_completion_length')}: "
            f"train.max_completion_length={arguments.max_completion_length} leaves no room for a prompt in the model's "
            f"context of {loaded.positions} tokens; lower it"
        )
    return faults_of(data.rows, found, Bounds(arguments.max_length, positions)), lengths


def _unknown_tokens(found: Sequence[Measured]) -> list[str]:
    """A line on unknown tokens in answers.

    Raises UserError if the model would learn to write `<unk>`.
    """
    supervised, unknown = sum(of.supervised for of in found), sum(of.unknown for of in found)
    if not unknown:
        return []
    having = sum(of.unknown > 0 for of in found)
    line = f"{unknown:,} of {supervised:,} supervised tokens ({unknown / supervised:.1%}, in {having} rows) are unknown to the tokenizer"
    if unknown > MAX_UNKNOWN * supervised:
        raise UserError(
            f"{line}: the model would learn to write the unknown token; use a model whose tokenizer knows these words"
        )
    return [line]


def _without(composed: Composed, data: TrainingData, faults: Sequence[Fault]) -> TrainingData:
    """The data without rows that cannot be used. Raises UserError unless on_bad_row=drop."""
    if not faults:
        return data
    if composed.config.on_bad_row == "error":
        refuse(faults, len(data.rows))
    return data.without_faults(_by_row(faults), _dropped_facts(faults))


def _by_row(faults: Sequence[Fault]) -> dict[str, list[str]]:
    return {kind: [fault.row for fault in of] for kind, of in by_kind(faults).items()}


def _dropped_facts(faults: Sequence[Fault]) -> list[str]:
    return [f"dropped (on_bad_row: drop): {line}" for line in described(faults)]


@contextmanager
def _display(report: Report | None) -> Iterator[Report]:
    """The caller's progress display, or a new one on the first process of a launch."""
    silent = int(os.environ.get("RANK", 0)) > 0
    with nullcontext(report) if report else nullcontext(lambda *_: None) if silent else progress() as display:
        yield display

"""A reward model as a reward: its files, and whether it fits the policy."""

from __future__ import annotations

from pathlib import Path

from align.errors import UserError
from align.models.presence import absent_adapter
from align.models.scalar_head import FILE, read_facts
from align.run_folder import RunFolder


def weights_of(key: str, path: str | None, rendering: str, base: str) -> Path:
    """The folder of a reward model's adapter and head; `path` is a run folder or that folder.

    Raises UserError if it is not finished, or was trained with another template or on another base
    than the policy's: its rewards of this policy's responses would mean nothing.
    """
    if path is None:
        raise UserError(
            f"{key}.path: a reward model is needed; train one, for example with align train recipe=mm_reward and the "
            f"same model=, and set {key}.path=<its run folder>"
        )
    folder = weights_at(f"{key}.path={path}", path)
    facts = read_facts(str(folder))
    if facts.get("rendering") != rendering:
        raise UserError(
            f"{key}.path={path}: this reward model was trained with another chat template, system prompt or image size "
            "than the policy has here; train it with the same model= and model.* settings"
        )
    if facts.get("base") and base and facts["base"] != base:
        raise UserError(
            f"{key}.path={path}: this reward model was trained on another base model than the policy; both are adapters "
            "on one base, so train it with the same model="
        )
    return folder


def weights_at(given: str, path: str) -> Path:
    """The folder of a reward model's weights; `path` is a run folder or that folder, `given` as typed.

    Raises UserError if there is none, or if its training is not finished.
    """
    run = RunFolder(Path(path))
    if run.manifest_file.is_file() and not run.finished():
        raise UserError(f"{given}: this run has not finished training; give its command again, then this one")
    folder = run.weights if run.manifest_file.is_file() else Path(path)
    if (lack := absent_adapter(str(folder))) or not (folder / FILE).is_file():
        raise UserError(f"{given}: no reward model there ({lack or f'{FILE} does not exist'})")
    return folder

"""A reward model as a reward: its files, and whether it fits the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.models.presence import absent_adapter
from align.models.scalar_head import FILE, read_facts
from align.run_folder import RunFolder

OTHERS = {
    "rendering": "with another chat template, system prompt or image size",
    "base": "on another base model",
    "quantization": "on a base with another model.quantization",
    "view": "in another view (view=)",
}
"""{what must be as for the policy: how an error says that it is not}."""


def weights_of(key: str, path: str | None, facts: Mapping[str, Any]) -> Path:
    """The folder of a reward model's adapter and head; `path` is a run folder or that folder.

    `facts` are those of the policy's run. Raises UserError if the reward model is not finished, or
    was trained differently: its rewards of this policy's responses would mean nothing.
    """
    if path is None:
        raise UserError(
            f"{key}.path: a reward model is needed; train one, for example with align train recipe=mm_reward and the "
            f"same model=, and set {key}.path=<its run folder>"
        )
    folder = weights_at(f"{key}.path={path}", path)
    found = read_facts(str(folder))
    for name, how in OTHERS.items():
        # The weights of a Hub id that is not in the cache are unknown ("").
        unknown = name == "base" and "" in (found.get(name), facts[name])
        if found.get(name) != facts[name] and not unknown:
            raise UserError(
                f"{key}.path={path}: this reward model was trained {how} than the policy here; both are adapters on one "
                "base and read the same prompts, so train it with the same model=, model.* and view="
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

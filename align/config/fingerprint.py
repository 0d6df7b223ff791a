"""The fingerprint of what a configuration trains; it identifies a run and is part of its folder's name."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from align.config.values import to_dict
from align.settings import RunConfig


def fingerprint(config: RunConfig) -> str:
    """Eight hex digits of the configuration without output folder, number of processes and evaluation (NOT_TRAINED)."""
    return fingerprint_of(to_dict(config))


NOT_TRAINED = (
    *("output_dir", "resume", "dry_run", "num_processes", "layout", "stored_reference", "stored_features"),
    *("evaluate", "evaluate_afterwards", "data_root", "variant", "on_bad_row", "on_overlap", "allow_label_conflict"),
)
"""Settings of a run that do not change what is trained, or only change the rows, which have their own fingerprint."""
NOT_TRAINED_ARGUMENTS = (
    *("max_length", "per_device_train_batch_size", "gradient_checkpointing"),
    *("report_to", "run_name", "disable_tqdm", "ddp_timeout"),
    *("log_", "logging_", "save_", "dataloader_"),
)
"""The same for trl's settings (`train.`): names and prefixes. `max_length` is here because nothing is truncated."""


def trains(argument: str) -> bool:
    """Whether a field of trl's configuration changes what is trained."""
    return not argument.startswith(NOT_TRAINED_ARGUMENTS)


JUDGED_BY = ("model", "path", "sees_image", "safety_reason", "prompt")
"""Settings of a judge that change its verdicts."""
FOUND_BY = re.compile(
    r"data\.[^.]+\.(path|revision|image_root|answers|on_missing_image)|model\.(path|revision|adapter)"
)
"""Settings that locate data and weights."""


def found_by(key: str) -> bool:
    """Whether a setting only locates a file whose content has its own fingerprint."""
    return FOUND_BY.fullmatch(key) is not None


def trained_by(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine what is trained, from a configuration in plain containers."""
    values = {key: value for key, value in config.items() if key not in NOT_TRAINED}
    values["train"] = {key: value for key, value in values["train"].items() if trains(key)}
    # The location of files does not change the training data, whose content has its own fingerprint.
    values["data"] = {
        name: {k: v for k, v in part.items() if k != "follow_links" and (k != "columns" or v)}
        for name, part in values["data"].items()
    }
    if values.get("start") is None:
        values.pop("start", None)
    else:  # the adapter is that of the recipe, wherever it is
        values["model"] = values["model"] | {"adapter": None}
    rewards = {f"rewards.{name}": reward for name, reward in values.pop("rewards", {}).items()}
    if cost := values.pop("cost", None):
        rewards["cost"] = cost
    if rewards:
        # A reward model's weights have their own fingerprint, and where a judge answers changes no verdict.
        values["rewards"] = {
            key: {name: of for name, of in reward.items() if name not in ("path", "judge")}
            | {"judge": {name: reward["judge"][name] for name in JUDGED_BY}}
            for key, reward in rewards.items()
        }
    generation = values.pop("generation")
    if any("generate" in (part["response"], part["harmful_response"]) for part in values["data"].values()):
        drawn = ("do_sample", "temperature", "top_p", "seed") if generation["do_sample"] else ()
        values["generation"] = {key: generation[key] for key in ("model", "max_new_tokens", *drawn)}
    return values


def fingerprint_of(config: dict[str, Any]) -> str:
    """`fingerprint` of a configuration in plain containers, which are not modified."""
    values = trained_by(config)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

"""What of a configuration says what is trained: by it a run is known, and its folder is named."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from align.config.values import to_dict
from align.settings import RunConfig


def fingerprint(config: RunConfig) -> str:
    """Eight hex digits that name what is trained: everything except where, with how many processes, and the evaluation."""
    return fingerprint_of(to_dict(config))


NOT_TRAINED = (
    *("output_dir", "resume", "dry_run", "num_processes", "layout", "stored_reference", "stored_features"),
    *("evaluate", "evaluate_afterwards", "data_root", "variant", "on_bad_row", "on_overlap", "allow_label_conflict"),
)
"""Settings of a run that do not change what is trained, or only through the rows, which are known by their own fingerprint."""
NOT_TRAINED_ARGUMENTS = (
    *("max_length", "per_device_train_batch_size", "gradient_checkpointing"),
    *("report_to", "run_name", "disable_tqdm", "ddp_timeout"),
    *("log_", "logging_", "save_", "dataloader_"),
)
"""The same of trl's (`train.`): names, and beginnings of names. Nothing is truncated, so `max_length` only bounds."""


def trains(argument: str) -> bool:
    """Whether a field of trl's configuration changes what is trained."""
    return not argument.startswith(NOT_TRAINED_ARGUMENTS)


FOUND_BY = re.compile(
    r"data\.[^.]+\.(path|revision|image_root|answers|on_missing_image)|model\.(path|revision|adapter)"
)
"""Settings that say where data and weights are found."""


def found_by(key: str) -> bool:
    """Whether a setting says where something is found whose content is known otherwise."""
    return FOUND_BY.fullmatch(key) is not None


def trained_by(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration in plain containers says what is trained."""
    values = {key: value for key, value in config.items() if key not in NOT_TRAINED}
    values["train"] = {key: value for key, value in values["train"].items() if trains(key)}
    # Where files are found is no part of what is trained on, which the data's own fingerprint tells.
    values["data"] = {
        name: {k: v for k, v in part.items() if k != "follow_links"} for name, part in values["data"].items()
    }
    generation = values.pop("generation")
    if any("generate" in (part["response"], part["harmful_response"]) for part in values["data"].values()):
        drawn = ("do_sample", "temperature", "top_p", "seed") if generation["do_sample"] else ()
        values["generation"] = {key: generation[key] for key in ("model", "max_new_tokens", *drawn)}
    return values


def fingerprint_of(config: dict[str, Any]) -> str:
    """`fingerprint` of a configuration that is plain containers, which it leaves as they are."""
    values = trained_by(config)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

"""Datasets on the Hugging Face Hub: a snapshot of one commit in the cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from align.data.hints import option
from align.errors import UserError
from align.hub_errors import said

COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot(name: str, revision: str | None, what: str, patterns: Sequence[str] | None = None) -> Path:
    """The folder of a dataset's files at a commit, downloaded if it is not in the cache. Raises UserError.

    Requires a commit, because a branch changes and results should not; the error names the branch's current commit.
    """
    from huggingface_hub import snapshot_download

    named = f"{what}: {option(f'path={name}')} does not exist here"
    if not COMMIT.fullmatch(revision or ""):
        given = f" (found revision={revision})" if revision else ""
        raise UserError(
            f"{named}. To read it from the Hugging Face Hub, give {option('revision=<commit>')}{given}; "
            f"{_now(name, revision)}. For local "
            f"files, correct {option('path=')}"
        )
    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=list(patterns) if patterns else None
            )
        )
    except OSError as error:  # errors of the Hub are OSErrors
        raise UserError(
            f"{named}, and revision {revision} cannot be read from the Hugging Face Hub: "
            f"{said(error, option('revision='))}"
        ) from error


def _now(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    named = revision or "main"
    try:
        return f"{named} is now revision={HfApi().dataset_info(name, revision=revision).sha}"
    except (
        Exception
    ) as error:  # without a network: errors of the Hub's HTTP client (httpx or httpx2), which are not OSErrors
        return f"the current commit of {named} is unknown: {said(error, option('revision='))}"

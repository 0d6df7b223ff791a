"""Data sets of the Hugging Face hub: a snapshot of one commit in the cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from align.data.hints import option
from align.errors import UserError
from align.hub_errors import said

COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot(name: str, revision: str | None, what: str, patterns: Sequence[str] | None = None) -> Path:
    """The folder of a data set's files at a commit, downloaded where they are not in the cache. Raises UserError.

    Nothing but a commit will do, since a branch moves and numbers should not; which commit it is at now is said.
    """
    from huggingface_hub import snapshot_download

    named = f"{what}: {option(f'path={name}')} does not exist on this machine; as a dataset of the hub"
    if not COMMIT.fullmatch(revision or ""):
        given = f" (found revision={revision})" if revision else ""
        raise UserError(
            f"{named} it needs {option('revision=<commit>')}{given}; {_now(name, revision)}. If it is not meant to be one, correct "
            f"{option('path=')}"
        )
    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=list(patterns) if patterns else None
            )
        )
    except OSError as error:  # the hub's errors are OSErrors
        raise UserError(f"{named}, revision {revision}: {said(error, option('revision='))}") from error


def _now(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    named = revision or "main"
    try:
        return f"{named} is revision={HfApi().dataset_info(name, revision=revision).sha} now"
    except (
        Exception
    ) as error:  # without a network the errors of the hub's HTTP client, httpx or httpx2, which are no OSErrors
        return f"which commit {named} is could not be asked: {said(error, option('revision='))}"

"""Errors of the Hugging Face Hub as messages that tell the user what to do."""

from __future__ import annotations


def said(error: Exception, key: str) -> str:
    """The Hub's error in one line, and what to do; `key` is the setting of the revision."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, GatedRepoError):
        return "gated: accept its terms on its page, and set HF_TOKEN (or `hf auth login`)"
    if isinstance(cause, RepositoryNotFoundError):
        return "no such repository, or a private one: correct the name, or set HF_TOKEN (or `hf auth login`)"
    if isinstance(cause, RevisionNotFoundError):
        return f"no such revision: correct {key}"
    line = next(
        (line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()), type(cause).__name__
    )
    return f"not fetched: {line}"

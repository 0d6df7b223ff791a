"""`align push`: upload an adapter or a model with its card to the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from align.config.compose import compose
from align.config.paths import HUB_ID, is_hub_id
from align.errors import UserError
from align.files import read_json
from align.run_folder import RunFolder
from align.settings import PushConfig
from align.tools.publish.card import CARD, name_base

NEEDED = (
    CARD,
    "LICENSE*",
    "*.safetensors",
    "*.safetensors.index.json",
    "*config.json",
    "*.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""Files that users of the model need: weights, settings, processor, card.

No other file is uploaded; in particular no pickle.
"""
ADAPTER = "adapter_config.json"
EMPTY_FORM = "[More Information Needed]"

Contents = dict[str, Path | bytes]
"""{name in the repository: a local file, or other content to upload instead}"""


def main(arguments: Sequence[str]) -> int:
    """List the files and upload them; with `dry_run=true` only list them. Raises UserError."""
    config: PushConfig = compose(PushConfig, arguments).config
    if config.repo is None or not HUB_ID.fullmatch(config.repo):
        raise UserError(f"repo={config.repo}: expected <owner>/<name>, the repository on the Hub")
    if config.base is not None and not HUB_ID.fullmatch(config.base):
        raise UserError(f"base={config.base}: expected <owner>/<name>, the base model's repository on the Hub")
    folder = _folder(config)
    contents = contents_of(folder, config.base)
    for name, content in contents.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        print(f"{size:>15,}  {name}")
    left_out = sorted(path.name for path in folder.iterdir() if path.name not in contents)
    if left_out:
        print(f"Not uploaded: {', '.join(left_out)}")
    if config.dry_run:
        print(f"Dry run: nothing was sent to {config.repo}")
        return 0
    print(upload(contents, config.repo, config.private))
    return 0


def _folder(config: PushConfig) -> Path:
    if (config.run is None) == (config.checkpoint is None):
        raise UserError(
            "Give either run=<run folder> or checkpoint=<folder of a model or adapter with a card>, one of the two."
        )
    if config.checkpoint is not None:
        return Path(config.checkpoint)
    run = RunFolder(Path(str(config.run)))
    if run.finished() and run.manifest().get("method") is None:
        raise UserError(
            f"run={run.path} evaluates a model that was not trained here, so there is nothing to push. Give the folder "
            "of a training run."
        )
    run.config()  # raises if the run is not finished
    return run.weights


def contents_of(folder: Path, base: str | None = None) -> Contents:
    """Files of a folder to upload, by name; `base` is recorded as the base model.

    Raises UserError if others could not use the upload.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    contents: Contents = {name: folder / name for name in sorted(names) if any(fnmatch(name, p) for p in NEEDED)}
    if not any(name.endswith(".safetensors") for name in contents):
        raise UserError(f"{folder}: found no weights (*.safetensors). Give the folder of a model or an adapter.")
    card = (folder / CARD).read_text(encoding="utf-8") if CARD in contents else ""
    if not card or EMPTY_FORM in card:
        what = f"its {CARD} is an empty form" if card else f"found no card ({CARD})"
        raise UserError(
            f"{folder}: {what}. To write a card, use `align eval run=<its run>` for a training run, `align merge run=` "
            "for a merged model."
        )
    if base is not None:
        contents[CARD] = name_base(card, base, adapter=ADAPTER in contents).encode()
    if ADAPTER in contents:
        contents[ADAPTER] = _adapter_config(folder / ADAPTER, base)
    return contents


def _adapter_config(file: Path, base: str | None) -> bytes:
    """The adapter's settings with a base that others can load.

    Raises UserError if the base is a local folder.
    """
    settings = read_json(file)
    trained_on = settings["base_model_name_or_path"]
    if base is None and not is_hub_id(trained_on):
        raise UserError(
            f"{file}: the adapter's base is a local folder ({trained_on}), which others cannot load. Give "
            "base=<owner>/<name> if the Hub has the same model; or push a merged model: align merge run=<its run> "
            "output_dir=<folder>, then align push checkpoint=<folder>"
        )
    return json.dumps(settings | {"base_model_name_or_path": base or trained_on}, indent=2).encode()


def upload(contents: Contents, repo: str, private: bool) -> str:
    """Upload all files in one commit -> a line with its URL. Raises UserError.

    The token comes from huggingface_hub: its login, or HF_TOKEN.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError(
            "There is no token for the Hub. Log in (`hf auth login`), or set HF_TOKEN to a token with write access."
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        is_private = bool(api.model_info(repo).private)
        _refuse_public(repo, private, is_private)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=it) for name, it in contents.items()]
        commit = api.create_commit(repo, operations, commit_message="Upload with align push")
    except UserError:
        raise
    # The client raises errors of its HTTP library (which differs between versions), of Xet, or
    # RuntimeErrors.
    except Exception as error:
        raise UserError(_failure(repo, api.endpoint, error).replace(token, "<token>")) from error
    return f"Uploaded ({'private' if is_private else 'public'}): {commit.commit_url}"


def _refuse_public(repo: str, private: bool, is_private: bool) -> None:
    if private and not is_private:
        raise UserError(
            f"repo={repo} exists and is public, so everybody would see the upload. Nothing was uploaded. Give "
            "private=false to upload there, or another repo= to create a private repository."
        )


def _failure(repo: str, endpoint: str, error: Any) -> str:
    message = " ".join(f"{type(error).__name__}: {error}".split())
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"repo={repo}: the Hub rejected the upload ({status}): {message}. Check that the token (`hf auth whoami`) has write access."
    if status is None:
        return f"repo={repo}: the upload failed: {message}. Check that {endpoint} can be reached and that HF_HUB_OFFLINE is not set."
    return f"repo={repo}: the upload failed ({status}): {message}. Give the same command again to upload the missing files."

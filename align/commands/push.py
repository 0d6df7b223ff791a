"""`align push`: a finished run's adapter or model, or a merged model, to the Hugging Face hub, with its card."""

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
"""What somebody needs who uses the model: weights, settings, processor, card. Everything else stays here, pickles above all."""
ADAPTER = "adapter_config.json"
EMPTY_FORM = "[More Information Needed]"

Contents = dict[str, Path | bytes]
"""Name there -> a file, or its content where that differs from the file's."""


def main(arguments: Sequence[str]) -> int:
    """List what is uploaded and upload it, or list it alone (`dry_run=true`). Raises UserError."""
    config: PushConfig = compose(PushConfig, arguments).config
    if config.repo is None or not HUB_ID.fullmatch(config.repo):
        raise UserError(f"repo={config.repo}: expected <owner>/<name>, the repository on the hub")
    if config.base is not None and not HUB_ID.fullmatch(config.base):
        raise UserError(f"base={config.base}: expected <owner>/<name>, the base model's repository on the hub")
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
        raise UserError("give one of run= (a run folder) or checkpoint= (the folder of a model or adapter with a card)")
    if config.checkpoint is not None:
        return Path(config.checkpoint)
    run = RunFolder(Path(str(config.run)))
    if run.finished() and run.manifest().get("method") is None:
        raise UserError(
            f"run={run.path}: the evaluation of a model that was not trained here; there is nothing to push"
        )
    run.config()  # raises where it is not finished
    return run.weights


def contents_of(folder: Path, base: str | None = None) -> Contents:
    """What is uploaded of a folder, by name; `base` is told as the base model. Raises UserError where others could not use it."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    contents: Contents = {name: folder / name for name in sorted(names) if any(fnmatch(name, p) for p in NEEDED)}
    if not any(name.endswith(".safetensors") for name in contents):
        raise UserError(f"{folder}: no weights (*.safetensors) in it; expected the folder of a model or an adapter")
    card = (folder / CARD).read_text(encoding="utf-8") if CARD in contents else ""
    if not card or EMPTY_FORM in card:
        what = f"its {CARD} is an empty form" if card else f"there is no card ({CARD}) in it"
        raise UserError(
            f"{folder}: {what}; write one: `align eval run=<its run>` does for a run of ours, `align merge run=` for a merged model"
        )
    if base is not None:
        contents[CARD] = name_base(card, base, adapter=ADAPTER in contents).encode()
    if ADAPTER in contents:
        contents[ADAPTER] = _adapter_config(folder / ADAPTER, base)
    return contents


def _adapter_config(file: Path, base: str | None) -> bytes:
    """The adapter's settings with a base that others can load. Raises UserError where it is a folder of this machine."""
    settings = read_json(file)
    trained_on = settings["base_model_name_or_path"]
    if base is None and not is_hub_id(trained_on):
        raise UserError(
            f"{file}: the adapter's base is a folder of this machine ({trained_on}), which nobody else can load; give "
            f"base=<owner>/<name> if the hub has the same model, or push the merged one: align merge run=<its run> "
            f"output_dir=<folder>, then align push checkpoint=<folder>"
        )
    return json.dumps(settings | {"base_model_name_or_path": base or trained_on}, indent=2).encode()


def upload(contents: Contents, repo: str, private: bool) -> str:
    """One commit of all files -> a line that says where they are. The token is the hub's own: its login, or HF_TOKEN. Raises UserError."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError("no token for the hub: log in (`hf auth login`), or set HF_TOKEN to a token that may write")
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        is_private = bool(api.model_info(repo).private)
        _refuse_public(repo, private, is_private)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=it) for name, it in contents.items()]
        commit = api.create_commit(repo, operations, commit_message="Upload with align push")
    except UserError:
        raise
    # What the client raises is its HTTP library's, which differs between its versions, Xet's, or a RuntimeError around them.
    except Exception as error:
        raise UserError(_failure(repo, api.endpoint, error).replace(token, "<token>")) from error
    return f"Uploaded ({'private' if is_private else 'public'}): {commit.commit_url}"


def _refuse_public(repo: str, private: bool, is_private: bool) -> None:
    if private and not is_private:
        raise UserError(
            f"repo={repo}: exists already and is public, so that everybody would see the upload; nothing was uploaded. "
            f"private=false uploads there all the same, another repo= makes a private one"
        )


def _failure(repo: str, endpoint: str, error: Any) -> str:
    message = " ".join(f"{type(error).__name__}: {error}".split())
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"repo={repo}: the hub refuses ({status}): {message}; does the token (`hf auth whoami`) have the right to write there?"
    if status is None:
        return f"repo={repo}: the upload failed: {message}; is {endpoint} within reach, and HF_HUB_OFFLINE unset?"
    return f"repo={repo}: the upload failed ({status}): {message}; the same command again uploads what is missing"

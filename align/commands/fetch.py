"""`align fetch`: download what runs need, for nodes without a network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from align.answering.endpoint import check_settings
from align.config.compose import compose_run, each_run
from align.config.paths import is_hub_id
from align.errors import UserError
from align.files import cache_folder
from align.models import presence
from align.settings import ModelSettings, RunConfig
from align.training.preflight import answers_to_come, missing_model, surveyed

MIB = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Fetch, print where everything is and how to run; returns 1 where something is missing.

    Raises UserError for wrong arguments.
    """
    runs = [(run, compose_run(run).config) for run in each_run(arguments)]
    for _, config in runs:
        check_settings(config.generation)
    if presence.offline():
        print("HF_HUB_OFFLINE is set: nothing is downloaded; the files in the caches are checked")
    staged: dict[tuple[str | None, str | None, str | None], list[str]] = {}
    lacking: list[str] = []
    for _, config in runs:
        model = config.model
        identity = (model.path, model.revision, model.build)
        if identity not in staged:
            staged[identity] = _stage(model)
        lacking += staged[identity] or missing_model(config, strict=True)
        lacking += _look_at_data(config)
    print(
        f"Caches: {presence.cache()} (HF_HOME) and {cache_folder('')} (XDG_CACHE_HOME). Runs must use the same caches."
    )
    print("Without a network:")
    for run, _ in runs:
        print(f"  HF_HUB_OFFLINE=1 accelerate launch align/train.py {shlex.join(run)}")
    if lacking:
        print("Missing:" + "".join(f"\n  - {line}" for line in dict.fromkeys(lacking)))
    return 1 if lacking else 0


def _stage(model: ModelSettings) -> list[str]:
    """Download a model and print where it is -> lines on what is missing."""
    from align.models.fetching import fetch

    try:
        if not model.path:
            from align.models.loading import locate

            print(f"Model {model.name}: built, {_size(Path(locate(model)))}")
        elif not is_hub_id(model.path):
            if Path(model.path).is_dir():
                print(f"Model {model.name}: a local folder, {_size(Path(model.path))}")
        elif not presence.offline():
            got = fetch(model)
            print(
                f"Model {model.path}, revision {model.revision or 'main'} (commit {got.commit}): {got.files} files, "
                f"{got.bytes / MIB:,.1f} MiB, {got.downloaded / MIB:,.1f} of them downloaded now, in {got.folder}"
            )
            if model.revision != got.commit:
                print(f"  To pin these weights: model.revision={got.commit}")
    except UserError as error:
        return [str(error)]
    return []


def _look_at_data(config: RunConfig) -> list[str]:
    """Read local data and benchmarks and print what is there -> lines on what is missing."""
    print(f"{config.recipe} on {config.model.name}:")
    lacking = [] if config.data else [f"recipe {config.recipe}: no data. Name a suite, or give data.<part>.source="]
    for part in surveyed(config):
        if part.readable:
            print(f"  {part.name}: {part.found}")
        else:
            lacking.append(f"{part.name}: {part.found}")
    for line in answers_to_come(config):
        print(f"  Still to do: {line}")
    return lacking


def _size(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{size / MIB:,.1f} MiB, in {folder}"

"""What is known of a diffusers pipeline before its weights are loaded: its class, its arguments, its identity."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from align.config.paths import is_hub_id
from align.errors import UserError, nearest
from align.hub_errors import said
from align.models.weights import fingerprint_of
from align.settings import PainterSettings

INDEX = "model_index.json"
"""The file of a pipeline that names its class and parts."""
BY_SETTING = {"num_inference_steps": "steps", "guidance_scale": "guidance", "width": "width", "height": "height"}
"""{argument of the call: the setting that gives it}."""
BY_PAINTER = ("prompt", "image", "generator", "latents", "num_images_per_prompt", "output_type", "return_dict")
"""Arguments that differ between images, or decide what the call returns."""
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
"""Files of a pipeline's parts in addition to weights: configurations, and vocabularies of tokenizers."""


def class_of(name: str, settings: PainterSettings) -> type[Any]:
    """The class of a pipeline; of a Hub id, one small file is downloaded. Raises UserError if it is
    not a pipeline of diffusers.
    """
    try:
        import diffusers
    except ImportError as error:
        raise UserError(
            f"{name}.path needs the package diffusers, which is not installed; run: pip install "
            f"'vsil-align[construct]' ({error})"
        ) from error
    file, given = _file_of(name, settings, INDEX), f"{name}.path={settings.path}"
    if file is None:
        raise UserError(f"{given}: it has no {INDEX}, so it is not a diffusers pipeline; correct the path")
    named = _read(file, given).get("_class_name")
    if not isinstance(named, str):
        raise UserError(
            f"{given}: {INDEX} names the class {named!r}; expected a class of diffusers, because code in the "
            f"pipeline's folder is not run. Give another pipeline, or {name}.use=module:function"
        )
    try:
        found = getattr(diffusers, named, None)
    except (ImportError, RuntimeError) as error:  # diffusers imports its modules when they are needed
        raise UserError(f"{given}: its class {named} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise UserError(
            f"{given}: its class {named} is not in diffusers {diffusers.__version__}, or a package that it needs is "
            "not installed; run: pip install -U diffusers"
        )
    return found


def accepted(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """{name: argument} of a pipeline's call."""
    found = inspect.signature(kind.__call__).parameters.items()
    return {name: one for name, one in found if name != "self" and one.kind is not inspect.Parameter.VAR_KEYWORD}


def same_for_all(name: str, settings: PainterSettings, kind: type[Any]) -> dict[str, Any]:
    """The arguments of the call that are the same for every image. Raises UserError for arguments
    that it does not have.
    """
    known, shown = accepted(kind), f"{name}.path={settings.path}: {kind.__name__}"
    for needed, purpose in (("prompt", "makes no images from a prompt"), ("generator", "takes no seed")):
        if needed not in known:
            raise UserError(f"{shown} {purpose}; give a pipeline whose call has the argument {needed}")
    given = {argument: getattr(settings, key) for argument, key in BY_SETTING.items()}
    given = {argument: value for argument, value in given.items() if value is not None}
    for argument, value in given.items():
        key = f"{name}.{BY_SETTING[argument]}"
        if argument not in known:
            raise UserError(f"{key}={value}: {kind.__name__} has no argument {argument}; remove {key}=")
        if argument != "guidance_scale" and value < 1:
            raise UserError(f"{key}={value}: expected at least 1")
    if ("width" in given) != ("height" in given):  # some pipelines then use their own size for both, without an error
        raise UserError(f"{name}.{'height' if 'width' in given else 'width'}= is not given; give both or none of them")
    for argument in settings.call:
        _check_argument(name, argument, kind, known)
    if settings.guidance is not None:
        _check_guidance(name, settings, known)
    return given | settings.call


def _check_argument(name: str, argument: str, kind: type[Any], known: dict[str, inspect.Parameter]) -> None:
    key = f"{name}.call.{argument}"
    if argument in BY_SETTING:
        raise UserError(f"{key}: give {name}.{BY_SETTING[argument]}= instead")
    if argument in BY_PAINTER or argument.startswith("callback"):
        raise UserError(f"{key}: this argument is set for each image, and cannot be given; remove it")
    if argument not in known:
        others = sorted(set(known) - {*BY_SETTING, *BY_PAINTER})
        raise UserError(
            f"{key}: {kind.__name__} has no such argument{nearest(argument, others)}; its arguments: "
            f"{', '.join(others)}"
        )


def _check_guidance(name: str, settings: PainterSettings, known: dict[str, inspect.Parameter]) -> None:
    """Raise UserError if the guidance has no effect: some pipelines use it only if their model was
    distilled with it.
    """
    if "true_cfg_scale" not in known or known["guidance_scale"].default is not None:
        return
    file = _file_of(name, settings, "transformer/config.json")
    if file is None or not _read(file, f"{name}.path={settings.path}").get("guidance_embeds"):
        raise UserError(
            f"{name}.guidance={settings.guidance}: this pipeline ignores it; give {name}.call.true_cfg_scale= and "
            f"{name}.call.negative_prompt= instead"
        )


def identity_of(path: str) -> dict[str, str]:
    """Fingerprint of a folder's weights and configurations, which may change under the same path;
    empty for a Hub id.
    """
    folder = Path(path)
    if not folder.is_dir():
        return {}
    parts = sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith("."))
    small = sorted(file for part in parts for pattern in SMALL for file in part.rglob(pattern))
    digest = hashlib.sha256()
    for file in (folder / INDEX, *small):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)}\0".encode() + content)
    return {"weights": fingerprint_of([str(part) for part in parts], digest.hexdigest())}


def _file_of(name: str, settings: PainterSettings, file: str) -> Path | None:
    """A file of the pipeline, downloaded if it is not in the cache; None if the pipeline does not
    have it. Raises UserError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    path = str(settings.path)
    if Path(path).is_dir():
        return Path(path, file) if Path(path, file).is_file() else None
    if not is_hub_id(path):
        raise UserError(f"{name}.path={path}: this folder does not exist; correct the path, or give a Hub id")
    try:
        return Path(hf_hub_download(path, file, revision=settings.revision))
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # without a network: errors of the Hub's HTTP client, which are not OSErrors
        raise UserError(f"{name}.path={path}: {said(error, f'{name}.revision')}") from error


def _read(file: Path, given: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{given}: {file.name} is not valid JSON ({error}); download the pipeline again") from error
    return found if isinstance(found, dict) else {}

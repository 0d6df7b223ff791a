"""What lmms_eval is called with: one small table of families, and the command that is made of it and the settings."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.endpoints import CREDENTIAL
from align.errors import UserError
from align.settings import LmmsEval, ModelSettings

if TYPE_CHECKING:  # which brings torch, for which `align eval` should not wait
    from align.models.loading import Loaded

MADE_HERE = ("model", "model_args", "tasks", "output_path", "log_samples", "batch_size", "device", "limit", "verbosity")
"""Arguments that are made of other settings, or that what is read afterwards depends on."""
TASK = re.compile(r"[\w.-]+")
SPREADING = ("accelerate", "torchrun")
"""Programs that start several processes, which share what is asked."""

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Adaptation:
    """How one family is measured by a class of lmms_eval's. Written for its version 0.7.3."""

    model: str
    """lmms_eval's name of the class."""
    arguments: Callable[[Loaded], Arguments]
    """What it takes of how we load the model; the rest is said by the folder that it loads (folder.py)."""
    writes_system_turn: bool = False
    """Whether it puts a system turn of its own before every request."""
    pads: bool = False
    """Whether transformers has an image processor for the family that pads to a square as we do."""
    attention: tuple[str, ...] = ()
    """The values of attn_implementation that it can be told."""
    facts: tuple[str, ...] = ()
    """What it does otherwise than we do, whatever it is told."""


def _of_llava(known: Loaded) -> Arguments:
    chosen = known.settings.attn_implementation
    return {"attn_implementation": chosen} if chosen else {}


def _of_qwen2_vl(known: Loaded) -> Arguments:
    # It resizes images itself, by bounds that have defaults of its own.
    size = known.processor.image_processor.size
    bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    flash = known.settings.attn_implementation == "flash_attention_2"
    return bounds | ({"use_flash_attention_2": True} if flash else {})


FAMILIES = {
    "llava": Adaptation("llava_hf", _of_llava, pads=True, attention=("sdpa", "eager", "flash_attention_2")),
    "qwen2_vl": Adaptation(
        "qwen2_vl",
        _of_qwen2_vl,
        writes_system_turn=True,
        attention=("flash_attention_2",),
        facts=("images are compressed anew before the model sees them (lmms_eval's qwen2_vl: JPEG, quality 85)",),
    ),
}
"""Family -> how lmms_eval measures it."""


def adaptation_of(settings: LmmsEval, known: Loaded) -> Adaptation:
    """How a model is measured: by the table, or with a class that the settings name. Raises UserError for an unknown family."""
    family = known.family.model_type
    if settings.model is None and family not in FAMILIES:
        raise UserError(
            f"lmms_eval.tasks: which of lmms_eval's model classes reads the family {family!r} is not known here (known: "
            f"{', '.join(FAMILIES)}); give lmms_eval.model=, one of `lmms_eval models`, and what it needs by lmms_eval.extra.model_args."
        )
    ours = FAMILIES.get(family)
    if settings.model is None or (ours is not None and settings.model == ours.model):
        assert ours is not None
        return ours
    return Adaptation(settings.model, lambda known: {}, facts=(f"through the class {settings.model}, not tried here",))


def unlike(adaptation: Adaptation, known: Loaded) -> Iterator[str]:
    """What lmms_eval does otherwise than our own sets are measured, each a fact to stand beside the numbers."""
    settings: ModelSettings = known.settings
    yield from adaptation.facts
    if settings.image_aspect_ratio == "pad" and not adaptation.pads:
        yield "measured without model.image_aspect_ratio=pad, which it does not have for this family"
    if settings.attn_implementation and settings.attn_implementation not in adaptation.attention:
        yield f"measured without model.attn_implementation={settings.attn_implementation}, which it cannot be told"
    if settings.quantization:
        yield f"measured without model.quantization={settings.quantization}: on the base in full precision"


def launcher(settings: LmmsEval) -> list[str]:
    """How lmms_eval is started. Raises UserError for what is no command."""
    try:
        words = shlex.split(settings.command) if settings.command else [sys.executable, "-m", "lmms_eval"]
    except ValueError as error:
        raise UserError(f"lmms_eval.command={settings.command}: {error}") from error
    return words


def model_arguments(settings: LmmsEval, adaptation: Adaptation, known: Loaded, device: str) -> Arguments:
    """What the class is told, but for where the model is; `lmms_eval.extra.model_args` lies over it, and null leaves one out."""
    extra = settings.extra.get("model_args") or {}
    if not isinstance(extra, dict):
        raise UserError(f"lmms_eval.extra.model_args={extra}: expected arguments by name, e.g. .device_map=auto")
    # A launcher gives each of its processes a device; told of one, they would all do everything on it.
    spread = any(Path(word).name in SPREADING for word in launcher(settings))
    ours = ({} if spread else {"device_map": device}) | adaptation.arguments(known)
    return {key: value for key, value in (ours | extra).items() if value is not None}


def command(
    settings: LmmsEval, task: str, adaptation: Adaptation, told: Arguments, model: Path, output: Path, device: str
) -> list[str]:
    """The whole command for one task. Raises UserError for a value that lmms_eval's own syntax cannot carry."""
    pairs = ",".join(
        f"{key}={_carried(key, value)}" for key, value in ({"pretrained": model.absolute()} | told).items()
    )
    given = [*launcher(settings), "--model", adaptation.model, "--model_args", pairs, "--tasks", task]
    given += ["--batch_size", str(settings.batch_size), "--device", device, "--output_path", str(output.absolute())]
    given += ["--log_samples", "--verbosity", "WARNING"]
    given += [] if settings.limit is None else ["--limit", str(settings.limit)]
    for key, value in _further(settings):
        given += (
            [f"--{key}"]
            if value is True
            else [f"--{key}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
        )
    return given


def check(settings: LmmsEval) -> None:
    """Raises UserError for settings that no command can be made of."""
    for task in settings.tasks:
        if not TASK.fullmatch(task):
            raise UserError(f"lmms_eval.tasks: {task!r} is no name of a task; `lmms_eval tasks list` shows them")
    if twice := next((task for task in settings.tasks if settings.tasks.count(task) > 1), None):
        raise UserError(f"lmms_eval.tasks: {twice} stands twice")
    for key, value in (("batch_size", settings.batch_size), ("limit", settings.limit)):
        if value is not None and value < 1:
            raise UserError(f"lmms_eval.{key}={value}: expected at least 1")
    for key in [*settings.extra, *(settings.extra.get("model_args") or {})]:
        if CREDENTIAL.search(str(key)):
            raise UserError(
                f"lmms_eval.extra: {key} may hold a key, and settings are written to files; lmms_eval reads keys of the environment"
            )
    for key in settings.extra:
        if key in MADE_HERE and key != "model_args":
            instead = f"lmms_eval.{key}=" if key in ("model", "tasks", "batch_size", "limit") else "other settings"
            raise UserError(f"lmms_eval.extra.{key}: it is made of {instead}; remove it")


def _further(settings: LmmsEval) -> Iterator[tuple[str, Any]]:
    for key, value in settings.extra.items():
        if key != "model_args" and value is not None and value is not False:
            yield key, value


def _carried(key: str, value: Any) -> str:
    """A value between commas, as lmms_eval splits them."""
    text = str(value)
    if re.search(r"[,'\"\[\]{}]", text):
        where = "the evaluation's folder" if key == "pretrained" else f"lmms_eval.extra.model_args.{key}"
        raise UserError(
            f"{where}: {text!r} has a comma, quote or bracket, which lmms_eval takes for its own; name it otherwise"
        )
    return text

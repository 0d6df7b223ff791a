"""The command for lmms_eval, made from settings and a small table of model families."""

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

if TYPE_CHECKING:  # imports torch, for which `align eval` should not wait
    from align.models.loading import Loaded

MADE_HERE = ("model", "model_args", "tasks", "output_path", "log_samples", "batch_size", "device", "limit", "verbosity")
"""Arguments that come from other settings, or on which reading the results depends."""
TASK = re.compile(r"[\w.-]+")
SPREADING = ("accelerate", "torchrun")
"""Programs that start several processes, which share the requests."""

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Adaptation:
    """How a class of lmms_eval measures one family. Written for lmms_eval 0.7.3."""

    model: str
    """Name of the class in lmms_eval."""
    arguments: Callable[[Loaded], Arguments]
    """Arguments of the class from the model's settings; the folder has the rest (folder.py)."""
    writes_system_turn: bool = False
    """Whether the class adds its own system turn before every request."""
    pads: bool = False
    """Whether transformers has an image processor for the family that pads to a square as here."""
    attention: tuple[str, ...] = ()
    """Values of attn_implementation that the class accepts."""
    facts: tuple[str, ...] = ()
    """Differences from this package's evaluation that no argument removes."""


def _of_llava(known: Loaded) -> Arguments:
    chosen = known.settings.attn_implementation
    return {"attn_implementation": chosen} if chosen else {}


def _of_qwen2_vl(known: Loaded) -> Arguments:
    # The class resizes images itself, with its own default bounds.
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
        facts=("images are compressed again before the model sees them (lmms_eval's qwen2_vl: JPEG, quality 85)",),
    ),
}
"""{family: its Adaptation}"""


def adaptation_of(settings: LmmsEval, known: Loaded) -> Adaptation:
    """The adaptation of a model: from the table, or for the class in the settings.

    Raises UserError for an unknown family.
    """
    family = known.family.model_type
    if settings.model is None and family not in FAMILIES:
        raise UserError(
            f"lmms_eval.tasks: no class of lmms_eval is known here for the model family {family!r} (known: "
            f"{', '.join(FAMILIES)}). Give lmms_eval.model=, one of `lmms_eval models`, and its arguments: "
            "lmms_eval.extra.model_args."
        )
    ours = FAMILIES.get(family)
    if settings.model is None or (ours is not None and settings.model == ours.model):
        assert ours is not None
        return ours
    return Adaptation(
        settings.model, lambda known: {}, facts=(f"measured with the class {settings.model}, which is not tested here",)
    )


def unlike(adaptation: Adaptation, known: Loaded) -> Iterator[str]:
    """Facts on how lmms_eval's evaluation differs from this package's, to show with the numbers."""
    settings: ModelSettings = known.settings
    yield from adaptation.facts
    if settings.image_aspect_ratio == "pad" and not adaptation.pads:
        yield "measured without model.image_aspect_ratio=pad, which lmms_eval does not support for this family"
    if settings.attn_implementation and settings.attn_implementation not in adaptation.attention:
        yield f"measured without model.attn_implementation={settings.attn_implementation}, which lmms_eval does not support"
    if settings.quantization:
        yield f"measured without model.quantization={settings.quantization}: on the base in full precision"


def launcher(settings: LmmsEval) -> list[str]:
    """The command that starts lmms_eval. Raises UserError for an invalid command."""
    try:
        words = shlex.split(settings.command) if settings.command else [sys.executable, "-m", "lmms_eval"]
    except ValueError as error:
        raise UserError(f"lmms_eval.command={settings.command}: {error}") from error
    return words


def model_arguments(settings: LmmsEval, adaptation: Adaptation, known: Loaded, device: str) -> Arguments:
    """Arguments of the class, without the model's folder.

    `lmms_eval.extra.model_args` overrides them; null removes one.
    """
    extra = settings.extra.get("model_args") or {}
    if not isinstance(extra, dict):
        raise UserError(f"lmms_eval.extra.model_args={extra}: expected arguments by name, e.g. .device_map=auto")
    # A launcher gives each of its processes a device; with an explicit device all would use the
    # same one.
    spread = any(Path(word).name in SPREADING for word in launcher(settings))
    ours = ({} if spread else {"device_map": device}) | adaptation.arguments(known)
    return {key: value for key, value in (ours | extra).items() if value is not None}


def command(
    settings: LmmsEval, task: str, adaptation: Adaptation, told: Arguments, model: Path, output: Path, device: str
) -> list[str]:
    """The whole command for one task. Raises UserError for a value that lmms_eval cannot parse."""
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
    """Raises UserError for settings from which no command can be made."""
    for task in settings.tasks:
        if not TASK.fullmatch(task):
            raise UserError(f"lmms_eval.tasks: {task!r} is not a task name. `lmms_eval tasks list` lists them.")
    if twice := next((task for task in settings.tasks if settings.tasks.count(task) > 1), None):
        raise UserError(f"lmms_eval.tasks: {twice} occurs twice. Remove one.")
    for key, value in (("batch_size", settings.batch_size), ("limit", settings.limit)):
        if value is not None and value < 1:
            raise UserError(f"lmms_eval.{key}={value}: expected at least 1")
    for key in [*settings.extra, *(settings.extra.get("model_args") or {})]:
        if CREDENTIAL.search(str(key)):
            raise UserError(
                f"lmms_eval.extra: {key} may hold a secret key, and settings are written to files. lmms_eval reads "
                "keys from environment variables: set it there."
            )
    for key in settings.extra:
        if key in MADE_HERE and key != "model_args":
            instead = f"lmms_eval.{key}=" if key in ("model", "tasks", "batch_size", "limit") else "other settings"
            raise UserError(f"lmms_eval.extra.{key} is set by {instead}. Remove it.")


def _further(settings: LmmsEval) -> Iterator[tuple[str, Any]]:
    for key, value in settings.extra.items():
        if key != "model_args" and value is not None and value is not False:
            yield key, value


def _carried(key: str, value: Any) -> str:
    """A value for lmms_eval's comma-separated arguments."""
    text = str(value)
    if re.search(r"[,'\"\[\]{}]", text):
        where = "the evaluation's folder" if key == "pretrained" else f"lmms_eval.extra.model_args.{key}"
        raise UserError(
            f"{where}: {text!r} has a comma, quote or bracket, which lmms_eval cannot parse. Use another name or value."
        )
    return text

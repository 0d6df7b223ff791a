"""The folder that lmms_eval loads: the weights that we evaluate, and a processor that writes prompts and images as ours does.

lmms_eval's own arguments could not carry a system prompt (commas split them) nor padding, but it loads template and processor from the
model's folder. So they are said there: what we do in code is what transformers then does by its files.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.evaluation.lmms.arguments import Adaptation
from align.files import read_json, write_json, write_text
from align.models.presence import folder_of

if TYPE_CHECKING:  # which brings torch, for which `align eval` should not wait
    from align.models.loading import Loaded, ModelSource

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "generation_config.json")
PADDING = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
"""transformers' processor that puts an image on a square of its mean colour, as the original LLaVA does."""


@contextlib.contextmanager
def prepared(
    source: ModelSource, known: Loaded, adaptation: Adaptation, beside: Path
) -> Iterator[tuple[Path, list[str]]]:
    """A folder for lmms_eval -> (it, facts); it is removed afterwards. An adapter is merged into its base. Raises UserError.

    Weights that need no merging are linked, not copied.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".model-") as name:
        weights, facts = _weights(source, known, Path(name, "merged"))
        folder = Path(name, "model")
        folder.mkdir()
        for pattern in WEIGHTS:
            for file in weights.glob(pattern):
                (folder / file.name).symlink_to(file.resolve())
        _write_config(folder, weights, known)
        write_processor(folder, adaptation, known)
        yield folder, facts


def _weights(source: ModelSource, known: Loaded, merged: Path) -> tuple[Path, list[str]]:
    """The folder of whole weights, and what was done to have it."""
    from align.models.merging import merge

    adapter = source.adapter or source.settings.adapter
    if adapter is None:
        folder = folder_of(known.path, source.settings.revision)
        if folder is None:
            raise UserError(f"model {known.path}: not at hand; `align fetch` brings it")
        return folder, []
    try:
        done = merge(Path(adapter), merged, source.settings)
    except UserError as error:
        raise UserError(
            f"lmms_eval needs the adapter merged into its base: {error}. Or merge it in float32 (`align merge ... dtype=float32`) and "
            f"evaluate that folder: checkpoint=<it>"
        ) from error
    return merged, [
        f"the adapter merged into its base (logits differ by at most {done.difference:.1e}, bound {done.bound:.1e})"
    ]


def _write_config(folder: Path, weights: Path, known: Loaded) -> None:
    """The model's configuration, with the type that we load its weights in: lmms_eval asks for `auto`, which is what stands here."""
    config = read_json(weights / "config.json")
    if known.settings.dtype != "auto":
        config |= dict.fromkeys(("dtype", "torch_dtype"), known.settings.dtype)  # the newer and the older name
    write_json(folder / "config.json", config)


def write_processor(folder: Path, adaptation: Adaptation, known: Loaded) -> None:
    """A processor that gives what our renderer gives of the same request and image. Raises UserError where there is no one template."""
    known.processor.save_pretrained(folder)
    known.processor.image_processor.save_pretrained(folder)  # under the name that earlier transformers read
    if known.settings.image_aspect_ratio == "pad" and adaptation.pads:
        for name, section in (("processor_config.json", "image_processor"), ("preprocessor_config.json", None)):
            values = read_json(folder / name)
            (values[section] if section else values).update(PADDING)
            write_json(folder / name, values)
    template = known.processor.chat_template
    if not isinstance(template, str):
        raise UserError(f"model {known.path}: its processor has no single chat template to give lmms_eval")
    write_text(folder / "chat_template.jinja", template_of(template, adaptation, known.settings.system_prompt))


def template_of(template: str, adaptation: Adaptation, system_prompt: str | None) -> str:
    """A chat template that begins a conversation as ours do: with our system turn, or with what the template itself writes.

    A system turn that lmms_eval's class puts there of its own is dropped; one of a task's own stays.
    """
    before = ""
    if adaptation.writes_system_turn:
        before += "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}"
    if system_prompt is not None:
        turn: dict[str, Any] = {"role": "system", "content": [{"type": "text", "text": system_prompt}]}
        ours = f"{{% set messages = [{json.dumps(turn, ensure_ascii=False)}] + messages %}}"
        before += f"{{% if messages[0].role != 'system' %}}{ours}{{% endif %}}"
    return before + template

"""The model folder for lmms_eval: weights, and a processor with this package's prompts and images.

lmms_eval's arguments cannot carry a system prompt (commas split them) or padding, but lmms_eval
loads template and processor from the model's folder. So this folder describes in files what this
package does in code.
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

if TYPE_CHECKING:  # imports torch, for which `align eval` should not wait
    from align.models.loading import Loaded, ModelSource

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "generation_config.json")
PADDING = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
"""transformers' processor that pads an image to a square with its mean colour, as LLaVA does."""


@contextlib.contextmanager
def prepared(
    source: ModelSource, known: Loaded, adaptation: Adaptation, beside: Path
) -> Iterator[tuple[Path, list[str]]]:
    """Make a temporary folder for lmms_eval -> (folder, facts). Raises UserError.

    An adapter is merged into its base. Weights that need no merging are linked, not copied.
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
    """-> (folder of complete weights, facts on merging)."""
    from align.models.merging import merge

    adapter = source.adapter or source.settings.adapter
    if adapter is None:
        folder = folder_of(known.path, source.settings.revision)
        if folder is None:
            raise UserError(f"model {known.path} is not in the cache. Download it with `align fetch`.")
        return folder, []
    try:
        done = merge(Path(adapter), merged, source.settings)
    except UserError as error:
        raise UserError(
            f"lmms_eval needs the adapter merged into its base, which failed: {error}. Merge it in float32 (`align "
            "merge ... dtype=float32`) and evaluate the merged model: checkpoint=<its folder>"
        ) from error
    return merged, [
        f"the adapter merged into its base (logits differ by at most {done.difference:.1e}, bound {done.bound:.1e})"
    ]


def _write_config(folder: Path, weights: Path, known: Loaded) -> None:
    """Write the model's configuration with the run's dtype.

    lmms_eval loads with `auto`, so it is used.
    """
    config = read_json(weights / "config.json")
    if known.settings.dtype != "auto":
        config |= dict.fromkeys(("dtype", "torch_dtype"), known.settings.dtype)  # newer and older name of the key
    write_json(folder / "config.json", config)


def write_processor(folder: Path, adaptation: Adaptation, known: Loaded) -> None:
    """Write a processor with the same result as this package's renderer.

    Raises UserError if the processor has no single chat template.
    """
    known.processor.save_pretrained(folder)
    known.processor.image_processor.save_pretrained(folder)  # the file name of earlier transformers
    if known.settings.image_aspect_ratio == "pad" and adaptation.pads:
        for name, section in (("processor_config.json", "image_processor"), ("preprocessor_config.json", None)):
            values = read_json(folder / name)
            (values[section] if section else values).update(PADDING)
            write_json(folder / name, values)
    if known.settings.template:
        raise UserError(
            "lmms_eval cannot give values to a chat template; remove model.template and generation.thinking, or lmms_eval"
        )
    template = known.processor.chat_template
    if not isinstance(template, str):
        raise UserError(f"model {known.path}: its processor has no single chat template to give lmms_eval")
    write_text(folder / "chat_template.jinja", template_of(template, adaptation, known.settings.system_prompt))


def template_of(template: str, adaptation: Adaptation, system_prompt: str | None) -> str:
    """A chat template that starts conversations as this package does.

    It starts with the run's system prompt, or with the template's own start. A system turn that
    lmms_eval's class adds is removed; a system turn of a task stays.
    """
    before = ""
    if adaptation.writes_system_turn:
        before += "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}"
    if system_prompt is not None:
        turn: dict[str, Any] = {"role": "system", "content": [{"type": "text", "text": system_prompt}]}
        ours = f"{{% set messages = [{json.dumps(turn, ensure_ascii=False)}] + messages %}}"
        before += f"{{% if messages[0].role != 'system' %}}{ours}{{% endif %}}"
    return before + template

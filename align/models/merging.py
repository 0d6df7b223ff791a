"""An adapter merged into its base: plain transformers weights, checked against the two apart before they are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from align.batches.padding import pad
from align.data.images import encode_png
from align.errors import UserError
from align.files import building
from align.models.loading import Loaded, load_checkpoint
from align.rows import Row
from align.settings import ModelSettings

TOLERANCE, OF_THE_LARGEST = 1e-4, 1e-5
"""The largest difference of a logit in float32: the first, or where logits are beyond 10 the second times the largest of them, since
a sum's rounding grows with what is summed (84 of its epsilons)."""
ROUNDING = 8
"""In a shorter type, to which every merged weight is rounded: this many of its epsilons, times the largest logit."""
SHARE = 0.1
"""Of what the adapter itself does: an effect below the type's rounding could be lost altogether within the bounds above."""


@dataclass(frozen=True)
class Merged:
    """How exact a merged model is, each over the logits of a text and an image prompt."""

    effect: float
    """What the adapter changes: the largest difference of a logit between the adapter switched on and off."""
    difference: float
    """The largest difference of a logit between merged and unmerged."""
    bound: float
    """What that may be at most."""


def merge(adapter: Path, output: Path, settings: ModelSettings) -> Merged:
    """Write the merged model -> how exact it is. Raises UserError and writes nothing where that is beyond its bound.

    The base is loaded in full precision whatever the adapter was trained on: what a 4-bit base would be merged into is 4-bit again.
    """
    if not Path(adapter, "adapter_config.json").is_file():
        raise UserError(
            f"{adapter}: there is no adapter_config.json, so there is nothing to merge; expected a peft adapter"
        )
    if output.exists():
        raise UserError(f"output_dir={output}: exists already; give another, or remove it")
    loaded = load_checkpoint(str(adapter), replace(settings, quantization=None))
    before = probe(loaded)
    with loaded.model.disable_adapter():
        effect = (before - probe(loaded)).abs().max().item()
    loaded.model = loaded.model.merge_and_unload()
    difference = (probe(loaded) - before).abs().max().item()
    exact = rounding(loaded.model.dtype, before)
    it = Merged(effect, difference, min(exact, SHARE * effect) if effect > 0 else exact)
    if not it.difference <= it.bound:  # so that a NaN is refused too
        raise UserError(_refusal(adapter, it, exact, loaded.model.dtype))
    with building(output) as draft:
        loaded.model.save_pretrained(draft)
        loaded.processor.save_pretrained(draft)
    return it


def probe(loaded: Loaded) -> torch.Tensor:
    """Logits of a text-only and an image prompt, as float32 (positions of both, vocabulary)."""
    renderer = loaded.renderer
    image = encode_png(Image.radial_gradient("L").resize((224, 224)).convert("RGB"))
    rows = [Row("text", "What is this?"), Row("image", "What is this?", images=(image,))]
    model = loaded.model.eval()
    return torch.cat([_logits(model, pad([renderer.render(row)], renderer.pad_token_id)) for row in rows])


@torch.no_grad()
def _logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    del batch["labels"]
    return model(**{key: value.to(model.device) for key, value in batch.items()}).logits[0].float()


def rounding(dtype: torch.dtype, logits: torch.Tensor) -> float:
    """How far a logit may be from itself by rounding alone, among these."""
    largest = logits.abs().max().item()
    if dtype == torch.float32:
        return max(TOLERANCE, OF_THE_LARGEST * largest)
    return ROUNDING * torch.finfo(dtype).eps * largest


def _refusal(adapter: Path, it: Merged, exact: float, dtype: torch.dtype) -> str:
    whose = (
        f"the rounding of {str(dtype).removeprefix('torch.')}"
        if it.bound == exact
        else f"a tenth of what the adapter changes ({it.effect:.2g})"
    )
    remedy = (
        "say dtype=float32, which merges without rounding"
        if dtype != torch.float32
        else "use model and adapter unmerged: checkpoint=<the adapter's folder>"
    )
    return (
        f"{adapter}: the logits of the merged model differ by {it.difference:.2g} from those of model and adapter, more than "
        f"{it.bound:.2g}, {whose}; nothing is written; {remedy}"
    )

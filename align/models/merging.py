"""Merge an adapter into its base: plain transformers weights, compared with the unmerged model
before they are written.
"""

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
from align.models.published_names import use_published_names
from align.models.scalar_head import FILE as HEAD
from align.rows import Row
from align.settings import ModelSettings

TOLERANCE, OF_THE_LARGEST = 1e-4, 1e-5
"""Bounds of a logit's difference in float32: the absolute bound, or, for logits beyond 10, the relative bound times the
largest logit, since the rounding error of a sum grows with its terms (84 epsilons)."""
ROUNDING = 8
"""Bound in a 16-bit type, to which every merged weight is rounded: this many epsilons times the largest logit."""
SHARE = 0.1
"""Bound as a share of the adapter's effect: an effect below the type's rounding could otherwise be lost unnoticed."""


@dataclass(frozen=True)
class Merged:
    """The exactness of a merged model, over the logits of a text prompt and an image prompt."""

    effect: float
    """The adapter's effect: the largest difference of a logit between adapter on and off."""
    difference: float
    """The largest difference of a logit between the merged and the unmerged model."""
    bound: float
    """The upper bound for `difference`."""


def merge(adapter: Path, output: Path, settings: ModelSettings) -> Merged:
    """Write the merged model and return its exactness. Raises UserError, and writes nothing, if a bound is exceeded.

    The base is loaded unquantized, even if the adapter was trained on a 4-bit base: a merge into a 4-bit
    base would be rounded to 4 bits again.
    """
    if not Path(adapter, "adapter_config.json").is_file():
        raise UserError(
            f"{adapter}: expected a peft adapter, found no adapter_config.json; give the folder of an adapter"
        )
    if Path(adapter, HEAD).is_file():
        raise UserError(
            f"{adapter}: a reward model cannot be merged: its scalar head is no part of a model of transformers; use it as "
            "rewards.<name>.path="
        )
    if output.exists():
        raise UserError(f"output_dir={output}: this folder exists already; give another folder, or remove it")
    return merge_loaded(load_checkpoint(str(adapter), replace(settings, quantization=None)), adapter, output)


def merge_loaded(loaded: Loaded, adapter: Path, output: Path) -> Merged:
    """`merge` of a model that is loaded with its adapter, which changes it. Raises UserError."""
    before = probe(loaded)
    with loaded.model.disable_adapter():
        effect = (before - probe(loaded)).abs().max().item()
    loaded.model = loaded.model.merge_and_unload()
    difference = (probe(loaded) - before).abs().max().item()
    exact = rounding(loaded.model.dtype, before)
    it = Merged(effect, difference, min(exact, SHARE * effect) if effect > 0 else exact)
    if not it.difference <= it.bound:  # rejects NaN too
        raise UserError(_refusal(adapter, it, exact, loaded.model.dtype))
    with building(output) as draft:
        loaded.model.save_pretrained(draft)
        loaded.processor.save_pretrained(draft)
        use_published_names(draft)
    return it


def probe(loaded: Loaded) -> torch.Tensor:
    """Logits of a text-only prompt and an image prompt, as float32 (positions of both, vocabulary)."""
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
    """The largest difference of a logit that rounding alone may cause, for logits of this size."""
    largest = logits.abs().max().item()
    if dtype == torch.float32:
        return max(TOLERANCE, OF_THE_LARGEST * largest)
    return ROUNDING * torch.finfo(dtype).eps * largest


def _refusal(adapter: Path, it: Merged, exact: float, dtype: torch.dtype) -> str:
    whose = (
        f"the rounding of {str(dtype).removeprefix('torch.')}"
        if it.bound == exact
        else f"a tenth of the adapter's effect ({it.effect:.2g})"
    )
    remedy = (
        "set dtype=float32, which merges without rounding"
        if dtype != torch.float32
        else "use the model and the adapter unmerged: checkpoint=<the adapter's folder>"
    )
    return (
        f"{adapter}: the logits of the merged model differ by {it.difference:.2g} from the unmerged model's, more than "
        f"{it.bound:.2g}, {whose}, so nothing is written; {remedy}"
    )

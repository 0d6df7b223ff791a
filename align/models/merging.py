"""An adapter merged into its base: plain transformers weights, checked against the two apart before they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from align.data.collation import pad
from align.data.images import encode_png
from align.data.rendering import Renderer
from align.errors import UserError
from align.files import building
from align.models.loading import Loaded, load_checkpoint
from align.rows import Row
from align.settings import ModelSettings

TOLERANCE = 1e-4
"""The largest difference of a logit in float32."""
ROUNDING = 8
"""In a shorter type, to which every merged weight is rounded: this many of its epsilons, times the largest logit."""


def merge(adapter: Path, output: Path, settings: ModelSettings) -> tuple[float, float]:
    """Write the merged model -> (largest difference of a logit, its bound). Raises UserError and writes nothing where it is exceeded.

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
    loaded.model = loaded.model.merge_and_unload()
    difference = (probe(loaded) - before).abs().max().item()
    bound = _bound(loaded.model.dtype, before)
    if not difference <= bound:  # so that a NaN is refused too
        raise UserError(
            f"{adapter}: the logits of the merged model differ by {difference:.2g} from those of model and adapter, more than "
            f"{bound:.2g}; nothing is written. dtype=float32 merges without rounding"
        )
    with building(output) as draft:
        loaded.model.save_pretrained(draft)
        loaded.processor.save_pretrained(draft)
    return difference, bound


def probe(loaded: Loaded) -> torch.Tensor:
    """Logits of a text-only and an image prompt, as float32 (positions of both, vocabulary)."""
    renderer = Renderer(loaded.processor, loaded.family)
    picture = encode_png(Image.radial_gradient("L").resize((224, 224)).convert("RGB"))
    rows = [Row("text", "What is this?"), Row("image", "What is this?", images=(picture,))]
    model = loaded.model.eval()
    return torch.cat([_logits(model, pad([renderer.render(row)], renderer.pad_token_id)) for row in rows])


@torch.no_grad()
def _logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    del batch["labels"]
    return model(**{key: value.to(model.device) for key, value in batch.items()}).logits[0].float()


def _bound(dtype: torch.dtype, logits: torch.Tensor) -> float:
    if dtype == torch.float32:
        return TOLERANCE
    return ROUNDING * torch.finfo(dtype).eps * logits.abs().max().item()

"""`align convert`: convert an original LLaVA checkpoint to transformers' layout in safetensors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from align.config.compose import compose
from align.errors import UserError
from align.settings import ConvertConfig


def main(arguments: Sequence[str]) -> int:
    """Convert, report every weight, and print the command that evaluates it. Raises UserError."""
    config: ConvertConfig = compose(ConvertConfig, arguments).config
    if config.checkpoint is None or not Path(config.checkpoint).is_dir():
        raise UserError(f"checkpoint={config.checkpoint}: expected the folder of an original LLaVA checkpoint")
    if config.output_dir is None:
        raise UserError("output_dir= is missing. Give output_dir=<folder for the converted model>")
    # Imported here: a typing error should not wait for torch.
    from align.tools.convert.llava import convert
    from align.tools.convert.tokenizer import SYSTEM_PROMPT

    done = convert(Path(config.checkpoint), Path(config.output_dir), config.vision_tower, config.trust_pickle)
    parts = ", ".join(f"{part} {count}" for part, count in sorted(done.tensors.items()))
    print(
        f"Tensors: {parts}. Vision tower: "
        f"{f'from {done.vision_tower}' if done.vision_tower else 'from the checkpoint'}."
    )
    if done.computed:
        print(f"{done.computed} more tensors can be computed from the configuration, match it, and are not stored.")
    before, after = done.vocabulary
    print(
        f"Vocabulary: {before:,} rows -> {after:,}. New rows, which include {', '.join(done.new_tokens)}, are the mean "
        "of the others."
    )
    print(f"Written to {config.output_dir}")
    settings = ["model.image_aspect_ratio=pad"] if done.image_aspect_ratio == "pad" else []
    settings.append(f"model.system_prompt={json.dumps(SYSTEM_PROMPT)}")
    print(
        "The original pads images to a square." if settings[1:] else "The original crops images to a square.",
        end=" ",
    )
    print("Its code puts LLaVA-1.5's system prompt before every conversation. To evaluate the model as its authors do:")
    print("  " + shlex.join(["align", "eval", f"model={config.output_dir}", *settings, "benchmark=..."]))
    return 0

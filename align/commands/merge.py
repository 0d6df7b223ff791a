"""`align merge`: merge an adapter into its base model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align.config.compose import compose
from align.errors import UserError
from align.models.merging import merge
from align.run_folder import RunFolder
from align.settings import MergeConfig, ModelSettings
from align.tools.publish.card import shown_as, write_card


def main(arguments: Sequence[str]) -> int:
    """Merge, check and write the model, and print how exact it is. Raises UserError."""
    config: MergeConfig = compose(MergeConfig, arguments).config
    if (config.run is None) == (config.checkpoint is None):
        raise UserError("Give either run=<run folder> or checkpoint=<folder of an adapter>, one of the two.")
    if config.output_dir is None:
        raise UserError("output_dir= is missing. Give output_dir=<folder for the merged model>")
    run = RunFolder(Path(config.run)) if config.run else None
    adapter, model = _of_run(run) if run else (Path(str(config.checkpoint)), ModelSettings())
    merged = merge(adapter, Path(config.output_dir), replace(model, dtype=config.dtype or model.dtype))
    if run:
        write_card(run, Path(config.output_dir))
    if merged.effect:
        print(f"The adapter changes the logits of a text and an image prompt by up to {merged.effect:.1e}.")
    else:
        print(
            "The adapter changes no logit of a text and an image prompt: the merged model responds as its base. Check "
            "that the adapter was trained."
        )
    print(f"Merged and unmerged logits differ by at most {merged.difference:.1e} (bound {merged.bound:.1e}).")
    print(f"Written to {config.output_dir}")
    if run and (shown := shown_as(run.config())):
        settings = " ".join(shlex.quote(f"model.{key}={value}") for key, value in shown.items())
        print(f"To evaluate it with prompts and images as in training: align eval model={config.output_dir} {settings}")
    return 0


def _of_run(run: RunFolder) -> tuple[Path, ModelSettings]:
    stored = run.config()
    if stored.lora is None:
        raise UserError(
            f"run={run.path} was trained in full, without an adapter, so there is nothing to merge. Use its model: "
            f"{run.weights}"
        )
    run.refuse_replaced_base()
    if stored.model.quantization:
        print(
            f"The adapter was trained on a base in {stored.model.quantization}, but it is merged into the base in full "
            "precision. Responses of the merged model may differ a little from the run's: evaluate the merged model "
            "too."
        )
    return run.weights, stored.model

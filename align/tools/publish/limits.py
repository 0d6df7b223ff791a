"""Limits of a run, as its model card lists them."""

from __future__ import annotations

from typing import Any

from align.evaluation.benchmark import SAFETY_KINDS
from align.settings import RunConfig


def limits(config: RunConfig, row: dict[str, Any], merged: bool = False) -> list[str]:
    """Sentences on what the run does not show."""
    parts = [part.source for part in config.data.values()]
    quantization = config.model.quantization
    base = "merged into the base in full precision" if merged else "on the base in full precision"
    found = [
        (
            True,
            f"One training run, with one seed ({config.seed}): intervals are over the items of a benchmark, not over "
            "seeds.",
        ),
        (row["stopped"], f"Training {row['stopped']}; it did not take all of its steps."),
        (
            config.lora is not None and config.track == "paper",
            "LoRA, while the published comparison trained all parameters: expect other numbers than published.",
        ),
        (quantization, f"Trained on a base in {quantization}; {base} its responses may differ a little."),
        (
            config.allow_label_conflict,
            "A view that hides the only evidence for a response was allowed (label conflicts, above).",
        ),
        (
            "miniature" in parts,
            "Synthetic data: images and sentences of a small artificial world. They show that the method runs, not how "
            "it works on real images.",
        ),
        *_not_measured(row["results"]),
    ]
    return [
        *(sentence for holds, sentence in found if holds),
        "No licence is stated here: the licences of the base and of the data apply.",
    ]


def _not_measured(results: dict[str, dict[str, Any]]) -> list[tuple[bool, str]]:
    if not results:
        return [(True, "Not evaluated: the effect of training on its responses is unknown.")]
    kinds = {result["kind"] for result in results.values()}
    judges = {each["judge"] for result in results.values() for each in (result, *result.get("other_judges", []))}
    return [
        (not kinds & {*SAFETY_KINDS, "twin"}, "Not measured: whether harmful requests are answered safely."),
        (
            not kinds & {"benign", "twin"},
            "Not measured: whether benign requests are still answered. A model that refuses everything looks safe.",
        ),
        ("ability" not in kinds, "Not measured: the effect of training on abilities."),
        *((judge in judges, f"Judge {judge}: {what}") for judge, what in JUDGES.items()),
    ]


JUDGES = {
    "refusal_match": "a word list. It measures whether a response has refusal phrases, not its safety; it is not the "
    "paper's judge.",
    "rule": "the miniature's own judge, which knows every sentence of its world; it is not the paper's judge.",
}

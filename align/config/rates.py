"""Default learning rate and epochs of each method, for runs that do not set them.

trl has one default learning rate, 2e-5. At this rate an adapter barely changes, and DPO of all
parameters diverges. The defaults here are common values. SFT: the scripts of LLaVA (2e-5 for full
fine-tuning; 2e-4 with LoRA, here half of it). DPO, KTO, ORPO
and SimPO: the examples of trl and LLaMA-Factory; all parameters with SimPO: its authors' script.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.config.origin import Origin
from align.settings import RunConfig


@dataclass(frozen=True)
class Rate:
    """Defaults of one method."""

    lora: float
    """Learning rate of an adapter."""
    full: float
    """Learning rate of all parameters."""
    epochs: float


RATES = {
    "sft": Rate(1e-4, 2e-5, 3),
    "dpo": Rate(5e-6, 5e-7, 1),
    "kto": Rate(5e-6, 5e-7, 1),
    "orpo": Rate(5e-6, 8e-6, 1),
    "simpo": Rate(5e-6, 6e-7, 1),
    "unlearning": Rate(1e-4, 2e-5, 3),
    "safe_unlearning": Rate(1e-4, 2e-5, 3),
}
"""{method: defaults}; your own method has trl's defaults."""


def fill_rates(config: RunConfig, origins: dict[str, Origin]) -> None:
    """Set absent values and their origin, so that they are shown and recorded like any other setting."""
    rate = RATES.get(config.method)
    if rate is None:
        return
    way = "all parameters" if config.lora is None else "an adapter"
    absent = {"learning_rate": rate.full if config.lora is None else rate.lora}
    if "max_steps" not in config.train:
        absent["num_train_epochs"] = rate.epochs
    for key, value in absent.items():
        if config.train.get(key) is None:
            config.train[key] = value
            origins[f"train.{key}"] = Origin("rates", f"default for {config.method} of {way}")

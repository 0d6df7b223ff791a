"""Learning rate and epochs of a run where neither its recipe, its suite, its model nor the command line sets them.

trl has one rate for everything, 2e-5: an adapter barely moves at it, and DPO of all parameters diverges. These are what is usual: for
SFT LLaVA's own scripts (2e-5 in full, 2e-4 with LoRA, here half of it), for DPO the rates of trl's and LLaMA-Factory's examples.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.config.origin import Origin
from align.settings import RunConfig


@dataclass(frozen=True)
class Rate:
    """Of one method."""

    lora: float
    """Learning rate of an adapter."""
    full: float
    """Learning rate of all parameters."""
    epochs: float


RATES = {
    "sft": Rate(1e-4, 2e-5, 3),
    "dpo": Rate(5e-6, 5e-7, 1),
    "unlearning": Rate(1e-4, 2e-5, 3),
    "safe_unlearning": Rate(1e-4, 2e-5, 3),
}
"""By method; one of somebody's own has trl's."""


def fill_rates(config: RunConfig, origins: dict[str, Origin]) -> None:
    """Set what is absent, with its origin, so that it is shown and recorded as any other setting."""
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

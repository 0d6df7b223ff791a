"""Which program generates the responses of a model on this machine: transformers or vLLM."""

from __future__ import annotations

from dataclasses import replace

from align.answering.local_model import LocalModel
from align.answering.vllm.environment import is_available
from align.answering.vllm.model import VllmModel
from align.errors import UserError
from align.models.loading import ModelSource
from align.settings import Generation, ModelSettings

ENGINES = ("transformers", "vllm", "auto")


def model_on_this_machine(source: ModelSource, generation: Generation) -> LocalModel | VllmModel:
    """The model with the engine of the settings. Raises UserError."""
    if generation.engine not in ENGINES:
        raise UserError(f"generation.engine={generation.engine}: expected one of {', '.join(ENGINES)}")
    if generation.engine == "vllm" or (generation.engine == "auto" and is_available(generation.vllm)):
        return VllmModel(source, generation)
    return LocalModel(source, generation)


def base_model(settings: ModelSettings, generation: Generation) -> LocalModel | VllmModel:
    """A base model without the adapter that a run may continue: an aligned adapter could refuse to write harmful responses.

    Raises UserError.
    """
    model = model_on_this_machine(ModelSource(replace(settings, adapter=None)), generation)
    model.name = f"the base model {settings.name} (weights {model.known.weights})"
    return model

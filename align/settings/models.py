"""Which model, and which of its parameters are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.option import option


@dataclass
class ModelSettings:
    """Which model, where it is, and how it is loaded."""

    name: str = option("", "the model's name in tables")
    path: str | None = option(None, "local folder or Hub id")
    build: str | None = option(
        None, "`module:function` that builds the model and returns its folder; used if `path` is not given"
    )
    revision: str | None = option(None, "commit of the model on the Hub")
    dtype: str = option("auto", "auto (as the weights are stored) | float32 | bfloat16 | float16")
    family: str | None = option(
        None, "name of a model family, or `module:name` of your own, for a model type that this package does not know"
    )
    system_prompt: str | None = option(
        None, "text of a system turn before every request; null keeps what the template writes"
    )
    template: dict[str, Any] = option(
        dict, "values that the model's chat template reads, e.g. model.template.enable_thinking=false"
    )
    image_aspect_ratio: str | None = option(
        None, "pad: pad images to a square with the processor's mean colour; null leaves them to the processor"
    )
    min_pixels: int | None = option(
        None, "minimum pixels per image, for processors that resize to a number of pixels (Qwen2-VL)"
    )
    max_pixels: int | None = option(
        None, "maximum pixels per image, for these processors (Qwen2-VL); it limits a row's image tokens"
    )
    attn_implementation: str | None = option(
        None, "sdpa | eager | flash_attention_2; null leaves the choice to transformers"
    )
    quantization: str | None = option(
        None, "nf4 | int8: quantize the language model's linear layers with bitsandbytes; needs an adapter"
    )
    adapter: str | None = option(None, "folder of a trained peft adapter; the run continues its training")


@dataclass
class Lora:
    """peft's LoraConfig, with peft's option names. `lora: null` is full fine-tuning."""

    r: int = option(16, "rank")
    lora_alpha: int = option(32, "scale; the update is multiplied by lora_alpha / r")
    lora_dropout: float = option(0.0, "dropout on the adapter's input")
    use_rslora: bool = option(False, "rank-stabilised LoRA: multiply the update by lora_alpha / sqrt(r) instead")
    use_dora: bool = option(
        False, "weight-decomposed LoRA (DoRA): train a magnitude per output in addition to the direction"
    )
    towers: list[str] = option(
        ["language_model"],
        "towers that may have adapters: language_model, multi_modal_projector, vision_tower",
    )
    target_modules: list[str] = option(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "linear layers in these towers, by the end of their dotted names; all-linear selects all of them; "
        "<tower>:<pattern> applies to one tower only, e.g. vision_tower:q_proj",
    )

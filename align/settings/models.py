"""Which model, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from align.settings.option import option


@dataclass
class ModelSettings:
    """Which model, from where, and how it is loaded."""

    name: str = option("", "how tables call it")
    path: str | None = option(None, "local folder or hub id")
    build: str | None = option(
        None, "`module:function` that makes the model and returns its folder, where `path` is not given"
    )
    revision: str | None = option(None, "hub revision, pinned")
    dtype: str = option("auto", "auto (as the weights are stored) | float32 | bfloat16 | float16")
    family: str | None = option(
        None, "name of a family, or `module:name` of one of your own, where the model type is not known here"
    )
    system_prompt: str | None = option(None, "a system turn before every request; null leaves what the template writes")
    image_aspect_ratio: str | None = option(
        None, "pad: images are put on a square of the processor's mean colour; null leaves them to the processor"
    )
    min_pixels: int | None = option(None, "of an image, for processors that resize to a number of pixels (Qwen2-VL)")
    max_pixels: int | None = option(None, "likewise; it bounds the image tokens of a row")
    attn_implementation: str | None = option(None, "sdpa | eager | flash_attention_2; null lets transformers choose")
    quantization: str | None = option(
        None, "nf4 | int8: the language model's linear layers, through bitsandbytes; needs an adapter"
    )
    adapter: str | None = option(None, "folder of a trained peft adapter that a run goes on training")


@dataclass
class Lora:
    """peft's LoraConfig, by its own names. `lora: null` is full fine-tuning."""

    r: int = option(16, "rank")
    lora_alpha: int = option(32, "scale; the update is multiplied by lora_alpha / r")
    lora_dropout: float = option(0.0, "dropout on the adapter's input")
    use_rslora: bool = option(False, "rank-stabilised: multiplied by lora_alpha / sqrt(r) instead")
    use_dora: bool = option(False, "weight-decomposed: a trained magnitude per output beside the direction")
    towers: list[str] = option(
        ["language_model"], "where adapters may go: language_model, multi_modal_projector, vision_tower"
    )
    target_modules: list[str] = option(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "linear layers inside those towers, by the end of their dotted names; all-linear is every one of them; "
        "<tower>:<pattern> is for one of the towers alone, e.g. vision_tower:q_proj",
    )

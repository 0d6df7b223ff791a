"""Quantization with bitsandbytes: the language model's linear layers in 4 or 8 bits, all other weights as stored."""

from __future__ import annotations

from typing import Any

import torch

from align.errors import UserError
from align.families import Family

KINDS = ("nf4", "int8")
OUTPUT_HEAD = "lm_head"
NF4_BLOCK = 64


def quantization_config(kind: str | None, family: Family, dtype: torch.dtype) -> Any:
    """The BitsAndBytesConfig of transformers; None without quantization.

    Raises UserError for an unknown kind, or if bitsandbytes is not installed.
    """
    check_kind(kind)
    if kind is None:
        return None
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"model.quantization={kind} needs bitsandbytes, which is not installed; run: pip install vsil-align[quant]"
        ) from error
    from transformers import BitsAndBytesConfig

    # The language model has most of the weights. The vision tower and the projector have a
    # twentieth, and an error there affects every image token. The output head's weight must be a
    # plain matrix, because trl's loss, for example, reads it directly.
    others = [tower for tower in family.towers if tower != "language_model"]
    skipped = [prefix for tower in others for prefix in family.prefixes(tower)] + [OUTPUT_HEAD]
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def check_kind(kind: str | None) -> None:
    """Raise UserError for an unknown kind of quantization."""
    if kind not in (None, *KINDS):
        raise UserError(f"model.quantization={kind}: expected one of {', '.join(KINDS)}, or null")


def refuse_odd_widths(kind: str | None, config: Any) -> None:
    """Raise UserError for layer widths that bitsandbytes quantizes in blocks of 64 and cannot compute in generation."""
    if kind != "nf4":
        return
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0) * (getattr(text, "head_dim", None) or 0)
    widths = {"hidden_size": text.hidden_size, "intermediate_size": text.intermediate_size, "heads x head_dim": heads}
    if odd := {name: width for name, width in widths.items() if width % NF4_BLOCK}:
        raise UserError(
            f"model.quantization=nf4: {', '.join(f'{name} is {width}' for name, width in odd.items())}, expected "
            f"multiples of {NF4_BLOCK}; use model.quantization=int8, or null"
        )


def refuse_dora_in_int8(kind: str | None, use_dora: bool) -> None:
    """Raise UserError for int8 with DoRA on a CPU: peft loses the scales of 8-bit weights, and the
    second step would fail.
    """
    if kind == "int8" and use_dora and not torch.cuda.is_available():
        raise UserError(
            "model.quantization=int8 with DoRA (use_dora) needs a GPU, because peft cannot compute it on a CPU; nf4 "
            "works on both"
        )


def count(parameter: torch.nn.Parameter) -> int:
    """The number of values of a parameter; a 4-bit parameter has two per element, a parameter
    partitioned by ZeRO-3 has none.
    """
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return state.shape.numel()
    return getattr(parameter, "ds_numel", parameter.numel())


def full_towers(model: Any) -> dict[str, torch.Tensor]:
    """{name: values} of parameters that a continued adapter trains in full (peft's modules_to_save)."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if ".modules_to_save.default." in name}


def restore_full_towers(model: Any, before: dict[str, torch.Tensor]) -> None:
    """Undo trl's cast to bf16 for towers trained in full: their inputs and their initial values have another dtype.

    trl casts all trainable parameters of a quantized model. An adapter's layers also cast their input;
    other layers do not.
    """
    for name, parameter in model.named_parameters():
        if ".modules_to_save.default." in name:
            original = model.get_parameter(name.replace(".modules_to_save.default.", ".original_module."))
            parameter.data = before.get(name, original.detach()).clone()

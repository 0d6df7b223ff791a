"""Original LLaVA checkpoints (haotian-liu/LLaVA) -> transformers' LLaVA in safetensors.

The tensors keep their values under other names. Only some rows of the vocabulary are new:
`<image>`, `<pad>`, and rows that fill it up to a multiple of 64, as in llava-hf/llava-1.5-7b-hf.
Each new row is the mean of the others. They change nothing: image features replace `<image>`,
nothing attends to `<pad>`, and a mean of logits is never the largest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.utils import is_torchvision_available

from align.errors import UserError
from align.files import building, read_json
from align.tools.convert.tokenizer import IMAGE, chat_template, check_prompt, load_tokenizer
from align.tools.convert.weights import Weights, read_weights

VISION = "vision_tower.vision_model."
EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
RENAMED = {
    "model.vision_tower.vision_tower.vision_model.": VISION,
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.layers.": "language_model.model.layers.",
    "model.norm.": "language_model.model.norm.",
    "lm_head.": "language_model.lm_head.",
}
"""{prefix in the original: prefix in published conversions}; transformers reads the latter"""
SELECTED = {"patch": "default", "cls_patch": "full"}
"""{original name: transformers' name} of which vision tower outputs the language model gets."""
MULTIPLE = 64


@dataclass(frozen=True)
class Converted:
    """Result of a conversion."""

    tensors: dict[str, int]
    """{part of the model: number of stored tensors}"""
    computed: int
    """Tensors that the configuration determines; they were checked and are not stored."""
    vision_tower: str | None
    """Source of the vision tower's weights; None for the checkpoint itself."""
    vocabulary: tuple[int, int]
    """Rows of the vocabulary before and after."""
    new_tokens: list[str]
    """Tokens without a row in the checkpoint."""
    image_aspect_ratio: str | None
    """How the original treats images that are not square: pad; otherwise it crops."""


def convert(checkpoint: Path, output: Path, vision_tower: str | None = None, trust_pickle: bool = False) -> Converted:
    """Write the converted model with its processor -> result.

    `vision_tower` is the folder or Hub id of the model's CLIP (default: from its configuration).
    Settings and image processor are read from there, and also weights unless the checkpoint has
    them. Raises UserError and writes nothing if a weight is left over.
    """
    if output.exists():
        raise UserError(f"output_dir={output} exists already. Give another one, or remove it.")
    original = _original_config(checkpoint)
    tower = vision_tower or original["mm_vision_tower"]
    vision = _vision_config(tower)
    stored, computed = _without_computed(read_weights(checkpoint, trust_pickle), original, vision, checkpoint)
    weights = renamed(stored, checkpoint)
    inside = any(name.startswith(VISION) for name in weights)
    if not inside:
        weights |= _tower_weights(tower, original, weights[EMBEDDING].dtype, trust_pickle)
    tokenizer = load_tokenizer(checkpoint, original)
    config = _config(original, vision, tokenizer, weights[EMBEDDING])
    _refuse_misfits(weights, config, checkpoint)
    before = config.text_config.vocab_size
    config.text_config.vocab_size = after = -(-max(len(tokenizer), before) // MULTIPLE) * MULTIPLE
    weights |= {name: _lengthened(weights[name], after) for name in (EMBEDDING, HEAD)}
    # Without torchvision, older versions of transformers do not find the class for CLIP's images.
    loader = AutoImageProcessor if is_torchvision_available() else CLIPImageProcessorPil
    processor = LlavaProcessor(
        image_processor=_read(tower, lambda: loader.from_pretrained(tower)),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # CLIP's class token
        chat_template=chat_template(original),
    )
    with building(output) as draft:
        config.save_pretrained(draft)
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        GenerationConfig(**ids).save_pretrained(draft)
        processor.save_pretrained(draft)
        check_prompt(draft, checkpoint)
        save_torch_state_dict(weights, draft)
    return Converted(
        tensors=dict(Counter(name.partition(".")[0] for name in weights)),
        computed=computed,
        vision_tower=None if inside else tower,
        vocabulary=(before, after),
        new_tokens=[tokenizer.convert_ids_to_tokens(i) for i in range(before, len(tokenizer))],
        image_aspect_ratio=original.get("image_aspect_ratio"),
    )


def _original_config(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises UserError for another model, or a setting that transformers' LLaVA cannot express.
    """
    file = checkpoint / "config.json"
    config: dict[str, Any] = read_json(file)
    kinds = config.get("architectures") or []
    if "text_config" in config:
        raise UserError(
            f"{file}: {', '.join(kinds)} is already in transformers' layout. Use it without conversion: "
            f"model={checkpoint}"
        )
    if "LlavaLlamaForCausalLM" not in kinds:
        raise UserError(
            f"{file}: architectures is {kinds}; expected LlavaLlamaForCausalLM, as haotian-liu/LLaVA writes it"
        )
    expected: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "mm_projector_type": ("linear", ("mlp2x_gelu",)),
        "mm_vision_select_feature": ("patch", tuple(SELECTED)),
        "mm_resampler_type": (None, (None,)),
        "mm_patch_merge_type": ("flat", ("flat",)),
        "image_aspect_ratio": (None, (None, "square", "pad")),
        "s2": (False, (False,)),
        "tie_word_embeddings": (False, (False,)),
    }
    for key, (default, possible) in expected.items():
        if (found := config.get(key, default)) not in possible:
            raise UserError(
                f"{file}: {key} is {found!r}, which transformers' LLaVA cannot express; expected "
                f"{' or '.join(map(repr, possible))}, as in LLaVA-1.5"
            )
    needed = [key for key in ("mm_vision_tower", "mm_vision_select_layer", "hidden_size") if key not in config]
    if needed:
        raise UserError(f"{file}: {needed[0]} is missing; expected the configuration of a LLaVA model")
    return config


def _vision_config(tower: str) -> CLIPVisionConfig:
    kind = _read(tower, lambda: AutoConfig.from_pretrained(tower)).model_type
    if kind not in ("clip", "clip_vision_model"):
        raise UserError(f"vision_tower={tower} is a {kind} model; expected a CLIP model")
    return CLIPVisionConfig.from_pretrained(tower)


def _without_computed(
    weights: Weights, config: dict[str, Any], vision: CLIPVisionConfig, checkpoint: Path
) -> tuple[Weights, int]:
    """Weights -> (learned weights, number of computed tensors).

    Older versions of transformers saved rotary frequencies and position ids, which newer ones
    compute. Raises UserError if they do not match the configuration, because the model would
    respond differently.
    """
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    steps = torch.arange(0, head, 2, dtype=torch.float32) / head
    patches = (vision.image_size // vision.patch_size) ** 2
    computed = {
        "rotary_emb.inv_freq": config.get("rope_theta", 10000.0) ** -steps,
        "embeddings.position_ids": torch.arange(patches + 1.0),
    }
    learned = {}
    for name, value in weights.items():
        wanted = next((values for ending, values in computed.items() if name.endswith(f".{ending}")), None)
        if wanted is None:
            learned[name] = value
        elif value.numel() != len(wanted) or not torch.allclose(value.flatten().float(), wanted, rtol=1e-2):
            raise UserError(
                f"{checkpoint}: {name} does not match config.json. Check that config.json belongs to this checkpoint."
            )
    return learned, len(weights) - len(learned)


def renamed(weights: Weights, checkpoint: Path) -> Weights:
    """The tensors under their names in published conversions.

    Raises UserError with unknown names.
    """
    names = {
        name: ours + name.removeprefix(prefix)
        for name in weights
        for prefix, ours in RENAMED.items()
        if name.startswith(prefix)
    }
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise UserError(f"{checkpoint}: {len(unknown)} weights are unknown: {', '.join(unknown)}; nothing is written")
    if EMBEDDING not in names.values():
        raise UserError(f"{checkpoint}: model.embed_tokens.weight is missing; nothing is written")
    return {names[name]: value for name, value in weights.items()}


def _tower_weights(tower: str, config: dict[str, Any], dtype: torch.dtype, trust_pickle: bool) -> Weights:
    """Weights of a CLIP's vision part, in the dtype of the checkpoint, as in the original code.

    Raises UserError.
    """
    if config.get("unfreeze_mm_vision_tower"):
        raise UserError(
            "the vision tower was trained (unfreeze_mm_vision_tower in config.json), but the checkpoint lacks its "
            f"weights, and {tower} has other weights"
        )
    model, found = _read(
        tower,
        lambda: CLIPVisionModel.from_pretrained(
            tower, dtype=dtype, use_safetensors=None if trust_pickle else True, output_loading_info=True
        ),
        "" if trust_pickle else ", or trust_pickle=true if it has only pickles",
    )
    if found["missing_keys"]:
        raise UserError(
            f"vision_tower={tower}: {', '.join(sorted(found['missing_keys']))}: weights of a CLIP's vision part are "
            "missing"
        )
    return {VISION + name.removeprefix("vision_model."): value for name, value in model.state_dict().items()}


def _config(config: dict[str, Any], vision: CLIPVisionConfig, tokenizer: Any, embedding: torch.Tensor) -> LlavaConfig:
    """Configuration of the model for transformers, with the vocabulary size of the checkpoint."""
    known = {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling"} - {"architectures", "model_type", "pad_token_id"}
    text = {key: value for key, value in config.items() if key in known} | {"vocab_size": len(embedding)}
    return LlavaConfig(
        text_config=LlamaConfig(**text),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=config["mm_vision_select_layer"],
        vision_feature_select_strategy=SELECTED[config.get("mm_vision_select_feature", "patch")],
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        dtype=embedding.dtype,
    )


def _refuse_misfits(weights: Weights, config: LlavaConfig, checkpoint: Path) -> None:
    """Raises UserError unless weights and transformers' model match in names and shapes."""
    model, found = LlavaForConditionalGeneration.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    for key, what in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "unknown"),
        ("mismatched_keys", "of another shape than in config.json"),
    ):
        if found[key]:
            names = sorted(str(name) for name in found[key])
            raise UserError(
                f"{checkpoint}: {len(names)} weights are {what} (by transformers' names): {', '.join(names)}; nothing "
                "is written"
            )
    assert len(model.state_dict()) == len(weights)


def _lengthened(rows: torch.Tensor, n: int) -> torch.Tensor:
    mean = rows.mean(0, keepdim=True, dtype=torch.float32).to(rows.dtype)
    return torch.cat([rows, mean.expand(n - len(rows), -1)])


def _read(path: str, read: Any, remedy: str = "") -> Any:
    try:
        return read()
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"vision_tower={path}: cannot be loaded: {first}. Give vision_tower=<folder of that CLIP>{remedy}"
        ) from error

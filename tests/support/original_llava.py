"""A tiny checkpoint as haotian-liu/LLaVA writes one, made of parts that know nothing of transformers' LLaVA."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SENTENCES = ["USER: What is this? ASSISTANT: a red ball on the table", "the cat sat on the mat", "describe the image"]
IMAGE = -200
"""What the original code has among the token ids where an image goes."""


@dataclass
class Original:
    """A checkpoint in memory: the language model, the projector, the vision tower, and what goes around them."""

    language_model: LlamaForCausalLM
    projector: dict[str, torch.Tensor]
    vision_tower: CLIPVisionModel
    images: CLIPImageProcessorPil
    tokenizer: PreTrainedTokenizerFast

    def config(self) -> dict:
        text = self.language_model.config
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        return {
            name: getattr(text, name) for name in (*names, "max_position_embeddings", "rms_norm_eps", "vocab_size")
        } | {
            "architectures": ["LlavaLlamaForCausalLM"],
            "model_type": "llava",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "hidden_act": "silu",
            "rope_scaling": None,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "freeze_mm_mlp_adapter": False,
            "image_aspect_ratio": "pad",
            "mm_hidden_size": self.vision_tower.config.hidden_size,
            "mm_projector_type": "mlp2x_gelu",
            "mm_resampler_type": None,
            "mm_use_im_patch_token": False,
            "mm_use_im_start_end": False,
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": -2,
            "mm_vision_tower": "openai/clip-vit-large-patch14-336",
            "use_mm_proj": True,
        }

    def weights(self, with_tower: bool) -> dict[str, torch.Tensor]:
        weights = dict(self.language_model.state_dict())
        weights |= {f"model.mm_projector.{name}": value for name, value in self.projector.items()}
        if with_tower:
            prefix = "model.vision_tower.vision_tower.vision_model."
            tower = {
                name.removeprefix("vision_model."): value for name, value in self.vision_tower.state_dict().items()
            }
            weights |= {prefix + name: value for name, value in tower.items()}
        return {name: value.clone() for name, value in weights.items()}

    @torch.no_grad()
    def logits(self, prompt: str, image=None) -> torch.Tensor:
        """(positions, vocabulary), as the original code computes them: features of an image go
        between the embeddings of the text.
        """
        before, *rest = (self.tokenizer(piece).input_ids for piece in prompt.split("<image>"))
        embedded = [self.language_model.model.embed_tokens(torch.tensor(before))]
        for piece in rest:
            pixels = torch.as_tensor(self.images(image, return_tensors="pt")["pixel_values"])
            seen = self.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
            hidden = functional.gelu(functional.linear(seen, self.projector["0.weight"], self.projector["0.bias"]))
            embedded.append(functional.linear(hidden, self.projector["2.weight"], self.projector["2.bias"]))
            embedded.append(self.language_model.model.embed_tokens(torch.tensor(piece[1:])))
        return self.language_model(inputs_embeds=torch.cat(embedded)[None]).logits[0]


def original_llava() -> Original:
    torch.manual_seed(0)
    tokenizer = llama_tokenizer()
    text = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    projector = {"0.weight": (64, 32), "0.bias": (64,), "2.weight": (64, 64), "2.bias": (64,)}
    return Original(
        LlamaForCausalLM(text).eval(),
        {name: torch.randn(shape) * 0.2 for name, shape in projector.items()},
        CLIPVisionModel(vision).eval(),
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
    )


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """LLaMA's kind of tokenizer: BPE over pieces that begin with a space, bytes for what is not among them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*specials, *(f"<0x{i:02X}>" for i in range(256))])
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def write_checkpoint(original: Original, folder: Path, with_tower: bool = True, files=None, **changed) -> Path:
    """The checkpoint's folder. `files` writes the weights, by default as one safetensors file;
    `changed` are settings of config.json.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(original.config() | changed))
    original.tokenizer.save_pretrained(folder)
    (files or one_file)(original.weights(with_tower), folder)
    return folder


def write_tower(original: Original, folder: Path) -> Path:
    """The CLIP's folder."""
    original.vision_tower.save_pretrained(folder)
    original.images.save_pretrained(folder)
    return folder


def one_file(weights, folder):
    save_file(weights, folder / "model.safetensors")


def one_pickle(weights, folder):
    torch.save(weights, folder / "pytorch_model.bin")


def shards(weights, folder):
    _sharded(weights, folder, "model-{:05d}-of-00002.safetensors", "model.safetensors", save_file)


def pickled_shards(weights, folder):
    _sharded(weights, folder, "pytorch_model-{:05d}-of-00002.bin", "pytorch_model.bin", torch.save)


def _sharded(weights, folder, pattern, name, save):
    places = {key: pattern.format(1 + (i % 2)) for i, key in enumerate(weights)}
    for place in set(places.values()):
        save({key: weights[key] for key in weights if places[key] == place}, folder / place)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

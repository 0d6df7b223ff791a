"""Diffusers pipelines with random weights, small enough to build and run in a moment."""

from __future__ import annotations

import string
from pathlib import Path

import torch


def parts(channels: int = 4) -> dict:
    """The parts of a Stable Diffusion pipeline; its images have 16 x 16 pixels. `channels` are
    those that the denoiser reads.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_" in name:
                weight.mul_(8)  # random weights hardly read the prompt
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )
    tokenizer = clip_tokenizer()
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    return {
        "vae": vae,
        "text_encoder": clip_text(tokenizer),
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def clip_tokenizer():
    """A CLIP tokenizer whose tokens are letters and digits."""
    from transformers import CLIPTokenizer

    signs = string.ascii_lowercase + string.digits + "-"
    words = [*signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=77)


def clip_text(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def strict_checker() -> dict:
    """The safety checker of Stable Diffusion, tiny, with a threshold that every image passes: all
    are replaced by black ones.
    """
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 32,
        "patch_size": 8,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    torch.nn.init.constant_(checker.concept_embeds_weights, -2.0)
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return {"safety_checker": checker, "feature_extractor": extractor, "requires_safety_checker": True}


def save_pipelines(folder: Path) -> dict[str, str]:
    """{name: folder} of pipelines: text (text-to-image), image (image-to-image), edit (with an
    instruction), checked.
    """
    from diffusers import (
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInstructPix2PixPipeline,
        StableDiffusionPipeline,
    )

    pipelines = {
        "text": StableDiffusionPipeline(**parts()),
        "image": StableDiffusionImg2ImgPipeline(**parts()),
        "edit": StableDiffusionInstructPix2PixPipeline(**parts(channels=8)),
        "checked": StableDiffusionPipeline(**parts() | strict_checker()),
    }
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(folder / name)
    return {name: str(folder / name) for name in pipelines}


def qwen_edit_plus():
    """The class of Qwen-Image-Edit-2509, in memory: its processor is saved in a form that only torchvision can load."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPlusPipeline,
        QwenImageTransformer2DModel,
    )

    from align.miniature.models import build

    torch.manual_seed(0)
    reader, processor = build("qwen2_vl")
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=reader.config.text_config.hidden_size,
        axes_dims_rope=(8, 4, 4),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False] * 3,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    pipeline = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=reader.eval(),
        tokenizer=processor.tokenizer,
        processor=processor,
        transformer=transformer,
    )
    pipeline.prompt_template_encode_start_idx = 4  # the real tokenizer needs 64 tokens for the template's beginning
    return pipeline

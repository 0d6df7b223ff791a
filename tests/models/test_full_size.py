"""The real geometries, built on `meta` from published configurations: which layers a LoRA pattern
reaches, and what that counts.
"""

import os
from pathlib import Path

import pytest
import torch
import transformers
from peft import get_peft_model
from transformers import AutoConfig

from align.config.compose import compose_run
from align.models.lora import lora_config, target_modules
from align.planning.skeleton import bare, skeleton
from align.settings import Lora, ModelSettings
from tests.support.full_size import MODELS, write

PARAMETERS = {
    "llava-1.5-7b-hf": 7_063_427_072,  # the index of its weights: total_size / 2
    # By hand: 303,507,456 of CLIP, 1024 x 5120 + 5120 x 5120 and two biases, 2 x 32064 x 5120, 40
    # layers of 4 x 5120 x 5120, 3 x 5120 x 13824 and two norms, and the last norm.
    "llava-1.5-13b-hf": 13_351_494_656,
    "Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-VL-4B-Instruct": 4_437_815_808,
}
VISION, PROJECTOR, LANGUAGE = "vision_tower", "multi_modal_projector", "language_model"


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return write(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def model(configs):
    made = {}

    def get(name):
        if name not in made:
            made[name] = bare(ModelSettings(name=name, path=str(configs / name), dtype="bfloat16"))
        return made[name]

    return get


def per_tower(it, **lora):
    names = target_modules(it.model, it.family, Lora(**lora))
    towers = [it.family.tower_of(name) for name in names]
    return {tower: towers.count(tower) for tower in (VISION, PROJECTOR, LANGUAGE)}


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_model_is_counted(model, name):
    it = model(name)
    assert all(parameter.is_meta for parameter in it.model.parameters())
    assert sum(of["all"] for of in it.towers.values()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llava-1.5-7b-hf", 7 * 32),
        ("llava-1.5-13b-hf", 7 * 40),
        ("Qwen2-VL-2B-Instruct", 7 * 28),
        ("Qwen2-VL-7B-Instruct", 7 * 28),
        ("Qwen2.5-VL-7B-Instruct", 7 * 28),
        ("Qwen3-VL-4B-Instruct", 7 * 36),
    ],
)
def test_the_default_patterns_reach_the_language_model_alone(model, name, layers):
    assert per_tower(model(name)) == {VISION: 0, PROJECTOR: 0, LANGUAGE: layers}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        # CLIP: q, k, v, out, fc1, fc2 in 24 layers; the projector's two.
        ("llava-1.5-7b-hf", {VISION: 6 * 24, PROJECTOR: 2, LANGUAGE: 7 * 32}),
        ("llava-1.5-13b-hf", {VISION: 6 * 24, PROJECTOR: 2, LANGUAGE: 7 * 40}),
        # qkv, proj, fc1, fc2 in 32 blocks; the merger's two.
        ("Qwen2-VL-2B-Instruct", {VISION: 4 * 32, PROJECTOR: 2, LANGUAGE: 7 * 28}),
        ("Qwen2-VL-7B-Instruct", {VISION: 4 * 32, PROJECTOR: 2, LANGUAGE: 7 * 28}),
        # A gated MLP in each block.
        ("Qwen2.5-VL-7B-Instruct", {VISION: 5 * 32, PROJECTOR: 2, LANGUAGE: 7 * 28}),
        # Two matrices of the merger and of each of the three mergers of lower layers.
        ("Qwen3-VL-4B-Instruct", {VISION: 4 * 24, PROJECTOR: 2 * 4, LANGUAGE: 7 * 36}),
    ],
)
def test_all_linear_over_each_tower(model, name, found):
    for tower, number in found.items():
        only = dict.fromkeys(found, 0) | {tower: number}
        assert per_tower(model(name), towers=[tower], target_modules=["all-linear"]) == only
    assert per_tower(model(name), towers=[VISION, PROJECTOR, LANGUAGE], target_modules=["all-linear"]) == found


@pytest.mark.parametrize(
    ("config", "found"),
    [
        # 32 layers of self-attention and 8 of cross-attention; 32 and 8 vision layers; one projection.
        (transformers.MllamaConfig(), {VISION: 6 * 40, PROJECTOR: 1, LANGUAGE: 7 * 40}),
        # A layer's experts are one tensor, so only its attention has linear layers.
        (transformers.Qwen3VLMoeConfig(), {VISION: 4 * 27, PROJECTOR: 2 * 4, LANGUAGE: 4 * 24}),
        (transformers.LlavaNextConfig(), {VISION: 6 * 24, PROJECTOR: 2, LANGUAGE: 7 * 32}),
        (transformers.LlavaOnevisionConfig(), {VISION: 6 * 26, PROJECTOR: 2, LANGUAGE: 7 * 32}),
        (transformers.InternVLConfig(), {VISION: 6 * 24, PROJECTOR: 2, LANGUAGE: 7 * 32}),
        (transformers.Idefics3Config(), {VISION: 6 * 12, PROJECTOR: 1, LANGUAGE: 7 * 32}),
        (transformers.SmolVLMConfig(), {VISION: 6 * 12, PROJECTOR: 1, LANGUAGE: 7 * 32}),
    ],
)
def test_all_linear_of_transformers_default_sizes(config, found, tmp_path):
    """These models' configurations are not public here; the classes' defaults are near them."""
    config.save_pretrained(tmp_path)
    it = bare(ModelSettings(path=str(tmp_path), dtype="bfloat16"))
    assert per_tower(it, towers=[VISION, PROJECTOR, LANGUAGE], target_modules=["all-linear"]) == found


def test_q_proj_of_the_language_model_leaves_the_vision_tower_that_has_one_too(model):
    it = model("llava-1.5-7b-hf")
    assert per_tower(it, target_modules=["q_proj"]) == {VISION: 0, PROJECTOR: 0, LANGUAGE: 32}
    both = {"towers": [VISION, LANGUAGE], "target_modules": ["q_proj"]}
    assert per_tower(it, **both) == {VISION: 24, PROJECTOR: 0, LANGUAGE: 32}


@pytest.mark.parametrize(
    ("name", "rank", "trainable"),
    [
        # r (in + out) for each matrix. Vicuna 7B: four of 4096 x 4096, three of 4096 x 11008.
        ("llava-1.5-7b-hf", 128, 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008))),
        ("llava-1.5-13b-hf", 128, 40 * 128 * (4 * (5120 + 5120) + 3 * (5120 + 13824))),
        # Qwen2-VL has fewer keys and values than queries: 2 and 4 heads of 128.
        ("Qwen2-VL-2B-Instruct", 64, 28 * 64 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))),
        ("Qwen3-VL-4B-Instruct", 64, 36 * 64 * (2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728))),
        ("Qwen2-VL-7B-Instruct", 64, 28 * 64 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))),
    ],
)
def test_trainable_parameters_by_hand(configs, name, rank, trainable):
    it = bare(ModelSettings(name=name, path=str(configs / name), dtype="bfloat16"))
    with torch.device("meta"):
        it.model = get_peft_model(it.model, lora_config(it.model, it.family, Lora(r=rank)))
    found = {tower: of["trainable"] for tower, of in it.towers.items()}
    assert found.pop(LANGUAGE) == trainable
    assert set(found.values()) == {0}
    assert sum(of["all"] for of in it.towers.values()) == PARAMETERS[name] + trainable


def test_full_fine_tuning_leaves_the_vision_tower(configs):
    composed = compose_run(["recipe=mm_sft", "model=llava_7b_full"])
    frozen = {tower: of["all"] - of["trainable"] for tower, of in skeleton(composed, True, str(configs)).towers.items()}
    assert frozen == {VISION: 303_507_456, PROJECTOR: 0, LANGUAGE: 0, "output_head": 0}
    without = skeleton(compose_run(["recipe=t_sft", "model=llava_7b_full"]), False, str(configs)).towers
    assert without[PROJECTOR] == {"all": 20_979_712, "trainable": 0}  # 1024 x 4096 + 4096 x 4096 and two biases


@pytest.mark.parametrize(
    ("ours", "published"),
    [("llava-1.5-7b-hf", "llava-1.5-7b-hf"), ("Qwen2-VL-7B-Instruct", "qwen2-vl-7b-instruct")],
)
def test_the_geometries_are_those_of_the_real_files(configs, ours, published):
    if "ALIGN_SHARED" not in os.environ:
        pytest.skip("ALIGN_SHARED is unset: it names a folder with hub/ (real configurations)")
    real = bare(ModelSettings(path=str(Path(os.environ["ALIGN_SHARED"], "hub", published))))
    written = bare(ModelSettings(path=str(configs / ours)))
    shapes = [{name: p.shape for name, p in it.model.named_parameters()} for it in (real, written)]
    assert shapes[0] == shapes[1]
    assert real.model.dtype == written.model.dtype
    assert AutoConfig.from_pretrained(configs / ours).model_type == real.config.model_type

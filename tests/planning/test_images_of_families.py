"""The tokens of an image by the plan are those that a family's processor writes."""

import numpy as np
import pytest
import transformers as t
from PIL import Image

from align.data.images import encode_png
from align.models.loading import load
from align.planning.images import image_tokens
from align.planning.layers import matrices
from align.planning.skeleton import bare
from align.rows import Row
from align.settings import ModelSettings
from tests.support import tiny_families

SIZES = [(640, 480), (300, 900), (1500, 400)]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava_next", "llava_onevision", "internvl", "smolvlm"])
@pytest.mark.parametrize("size", [(60, 40), (30, 60), (20, 20)])
def test_a_tiny_processor_writes_as_many(name, size, tmp_path, monkeypatch):
    model, processor = tiny_families.build(name)
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    monkeypatch.setattr("align.planning.images.TILES", 2)
    monkeypatch.setattr("align.planning.images.SPLIT", 2)
    images = processor.image_processor
    pixels = {"min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"]}
    settings = ModelSettings(path=str(tmp_path), dtype="float32", **(pixels if name.startswith("qwen") else {}))
    renderer = load(settings).renderer
    noise = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    row = Row("r", "what is this", (encode_png(Image.fromarray(noise)),))
    written = len(renderer.render(row).prompt_ids) - len(renderer.render(Row("r", "what is this")).prompt_ids)
    marks = {"qwen2_5_vl": 2, "qwen3_vl": 2}  # the template's, around an image
    counted = image_tokens(model.config, settings, f"{size[0]}x{size[1]}").tokens + marks.get(name, 0)
    # Idefics3 and SmolVLM write two marks a tile, and one more at the end of the image.
    assert counted == written - (name == "smolvlm")


@pytest.mark.parametrize("size", SIZES)
def test_internvl_in_its_published_sizes(size):
    """OpenGVLab/InternVL3-8B-hf: tiles of 448 pixels, 256 tokens each, 12 at most."""
    images = t.GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    tiles = images(Image.new("RGB", size), return_tensors="np")["num_patches"][0]
    counted = image_tokens(t.InternVLConfig(), ModelSettings(), f"{size[0]}x{size[1]}")
    assert (counted.tokens, counted.patches) == (256 * tiles + 2, 1025 * tiles)


def test_a_token_is_multiplied_with_the_experts_that_it_is_sent_to(tmp_path):
    """Qwen3-VL-30B-A3B by name: some 3 of its 30 billion parameters for each token."""
    text = {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4}
    experts = {"head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    t.Qwen3VLMoeConfig(text_config=text | experts | {"vocab_size": 151936}).save_pretrained(tmp_path)
    it = bare(ModelSettings(path=str(tmp_path), dtype="bfloat16"))
    found = [matrix for matrix in matrices(it, False) if matrix.tower == "language_model"]
    each = 2 * 2048 * 4096 + 2 * 2048 * 512 + 8 * 3 * 2048 * 768
    assert sum(matrix.weights for matrix in found) == 48 * each
    assert 29e9 < it.towers["language_model"]["all"] < 31e9

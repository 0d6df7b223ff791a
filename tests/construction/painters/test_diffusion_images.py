"""Images of a diffusers pipeline: real pipeline classes, tiny and with random weights, saved and loaded again."""

import importlib.util
from importlib.metadata import version

import numpy as np
import pytest

if importlib.util.find_spec("diffusers") is None:
    pytest.skip("diffusers is not installed: pip install 'vsil-align[construct]'", allow_module_level=True)


from align.construction.painters.painter import Painting
from align.errors import UserError
from tests.support.painting import ROUNDING, assert_equal, diffusers, jobs, painter, pixels, striped
from tests.support.tiny_pipelines import qwen_edit_plus

OLD = version("diffusers").startswith("0.35.")

pytestmark = [pytest.mark.slow, pytest.mark.long]  # diffusers takes long to import


def test_an_image_depends_on_its_seed_and_prompt_and_not_on_its_batch(pipelines, batches):
    settings = {"guidance": 5.0, "steps": 2, "call": {"negative_prompt": "a dog"}}
    together = pixels(painter(pipelines["text"], batch_size=3, **settings).paint(jobs(3)))
    assert batches == [6, 6]  # with guidance, each image is two
    alone = painter(pipelines["text"], **settings)
    one_by_one = pixels([found for job in reversed(jobs(3)) for found in alone.paint([job])])
    assert_equal(together, one_by_one)
    assert together["0"].shape == (16, 16, 3)
    others = pixels(alone.paint([Painting("seed", jobs(1)[0].prompt, 101), Painting("prompt", "green 7", 100)]))
    assert min(np.abs(together["0"] - other).max() for other in others.values()) > 20 * ROUNDING


def test_settings_and_arguments_of_the_call_change_the_image(pipelines):
    base = {"guidance": 5.0, "steps": 2}

    def made(**settings):
        return pixels(painter(pipelines["text"], **base | settings).paint(jobs(1)))["0"]

    plain = made()
    assert made(width=32, height=24).shape == (24, 32, 3)
    for other in (
        {"steps": 3},
        {"guidance": 9.0},
        {"call": {"negative_prompt": "a dog"}},
        {"call": {"guidance_rescale": 0.9}},
    ):
        assert np.abs(plain - made(**other)).max() > 4 * ROUNDING, other


@pytest.mark.parametrize("name", ["image", "edit"])
def test_images_to_edit_share_a_batch_only_with_their_size(pipelines, batches, name):
    """The order of the results is free; which image belongs to which job is not."""
    given = jobs(5, striped(), striped(24), striped(level=90), striped(24, level=50), striped(16, 24))
    call = {"call": {"strength": 1.0}} if name == "image" else {"call": {"image_guidance_scale": 1.0}}
    editor = painter(pipelines[name], batch_size=8, **call)
    assert editor.edits
    together = pixels(editor.paint(given))
    assert sorted(batches) == [1, 2, 2]
    assert together["1"].shape == (16, 24, 3)
    assert_equal(together, pixels(found for job in given for found in painter(pipelines[name], **call).paint([job])))


def test_the_result_depends_on_the_image_to_edit(pipelines):
    editor = painter(pipelines["edit"], guidance=2.0, call={"image_guidance_scale": 50.0})
    light, dark = (pixels(editor.paint([Painting("a", "a cat", 1, striped(level=of))]))["a"] for of in (250, 20))
    assert np.abs(light - dark).max() > ROUNDING


def test_a_pipeline_without_edits_makes_images_from_the_prompt_alone(pipelines):
    maker = painter(pipelines["text"])
    assert not maker.edits
    assert_equal(pixels(maker.paint(jobs(1, striped()))), pixels(maker.paint(jobs(1))))


@pytest.mark.skipif(OLD, reason="diffusers 0.35 does not have this class")
def test_a_pipeline_to_which_a_list_is_several_references_edits_each_image_by_itself(monkeypatch, tmp_path):
    """Qwen-Image-Edit-2509 and FLUX.2 read a list of images as references for one result.

    The first has a reader of images, which also must be given the tokens that are an image's.
    """
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 32 * 32)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 32 * 32)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda *_, **__: qwen_edit_plus())
    prompts, check = [], diffusers.QwenImageEditPlusPipeline.check_inputs

    def counted(self, prompt, *args, **settings):
        prompts.append(prompt)
        return check(self, prompt, *args, **settings)

    monkeypatch.setattr(diffusers.QwenImageEditPlusPipeline, "check_inputs", counted)
    (tmp_path / "model_index.json").write_text('{"_class_name": "QwenImageEditPlusPipeline"}')
    settings = {"guidance": None, "width": 32, "height": 32, "batch_size": 4}
    given = jobs(3, striped(), striped(level=90), striped(24))
    together = pixels(painter(str(tmp_path), **settings).paint(given))
    assert_equal(together, pixels(found for job in given for found in painter(str(tmp_path), **settings).paint([job])))
    assert prompts == [job.prompt for job in given] * 2
    assert np.abs(together["0"] - together["1"]).max() > ROUNDING
    with pytest.raises(UserError, match=r"painter\.call\.true_cfg_scale="):
        painter(str(tmp_path), guidance=4.0)

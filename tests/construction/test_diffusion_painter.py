"""Images of a diffusers pipeline: real pipeline classes, tiny and with random weights, saved and loaded again."""

import io
import json
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vsil-align[construct]'")

import diffusers
from safetensors.torch import load_file, save_file

from align.answering.conversation import Failure
from align.construction.painters import pipeline_loading
from align.construction.painters.build import build_painter
from align.construction.painters.diffusion import FIRST_FAILURES, DiffusionPainter
from align.construction.painters.painter import OUT_OF_MEMORY, Painted, Painting
from align.data.images import encode_png
from align.errors import UserError
from align.rows import ImageRef
from align.settings import PainterSettings
from tests.support.hub_mirror import COMMIT, hub_server
from tests.support.launch import ROOT, call
from tests.support.tiny_pipelines import qwen_edit_plus, save_pipelines

OLD = diffusers.__version__.startswith("0.35.")
ROUNDING = 1
"""A batch's matrices are summed in another order than one image's: float32 differs by 1e-6, and a pixel by one level at most."""


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    return save_pipelines(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The same on every machine."""
    monkeypatch.setattr(pipeline_loading, "has_gpu", lambda: False)


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that the denoiser gets; without guidance it gets every image once."""
    sizes = []
    forward = diffusers.UNet2DConditionModel.forward

    def counted(self, sample, *args, **kwargs):
        sizes.append(len(sample))
        return forward(self, sample, *args, **kwargs)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", counted)
    return sizes


def painter(path, **settings):
    return build_painter("painter", PainterSettings(**{"path": path, "steps": 1, "guidance": 1.0} | settings))


def jobs(count, *images):
    """Jobs with different prompts and seeds, and these images."""
    given = images or [None] * count
    return [Painting(f"{i}", f"a cat {'or more ' * i}{i}", 100 + i, image) for i, image in enumerate(given)]


def striped(width=16, height=16, level=200):
    image = Image.new("RGB", (width, height), (level, 20, 60))
    image.paste((10, 160, level // 2), (width // 2, 0, width, height))
    return encode_png(image)


def pixels(found):
    """{id: pixels} of finished images."""
    found = list(found)
    assert all(isinstance(one, Painted) for one in found), found
    opened = {one.id: Image.open(io.BytesIO(one.png)) for one in found}
    assert {(image.format, image.mode) for image in opened.values()} == {("PNG", "RGB")}
    return {name: np.asarray(image).astype(int) for name, image in opened.items()}


def reasons(found):
    return {one.id: one.reason if isinstance(one, Failure) else "painted" for one in found}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, image in left.items():
        assert image.shape == right[name].shape
        assert np.abs(image - right[name]).max() <= ROUNDING, name


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


@pytest.fixture
def short_of_memory(monkeypatch):
    """A function: the denoiser raises this error for more than so many images. -> sizes that were tried, and whether memory was kept."""

    def limit(most, error):
        tried, failed, kept = [], [], []
        forward = diffusers.UNet2DConditionModel.forward

        def limited(self, sample, *args, **kwargs):
            kept.extend(of() is not None for of in failed)
            tried.append(len(sample))
            if len(sample) > most:
                failed.append(weakref.ref(sample))
                raise type(error)(*error.args)  # a new one: an error keeps its traceback, and so the tensors
            return forward(self, sample, *args, **kwargs)

        monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", limited)
        return tried, kept

    return limit


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["gpu", "python", "cpu", "cublas"],
)
def test_a_batch_that_is_too_large_is_halved_and_stays_smaller(pipelines, short_of_memory, error):
    expected = pixels(painter(pipelines["text"]).paint(jobs(7)))
    tried, _ = short_of_memory(2, error)
    maker = painter(pipelines["text"], batch_size=6)
    assert_equal(pixels(maker.paint(jobs(7))), expected)
    assert tried == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert_equal(pixels(maker.paint(jobs(7))), expected)
    assert tried[9:] == [1] * 7


def test_the_memory_of_a_failed_batch_is_free_before_the_next_try(pipelines, short_of_memory):
    tried, kept = short_of_memory(1, torch.OutOfMemoryError("CUDA out of memory"))
    list(painter(pipelines["text"], batch_size=4).paint(jobs(4)))
    assert tried == [4, 2, 1, 1, 1, 1]
    assert not any(kept)


def test_an_image_that_alone_needs_too_much_memory_is_a_failure_and_others_go_on(pipelines, monkeypatch):
    forward = diffusers.UNet2DConditionModel.forward

    def limited(self, sample, *args, **kwargs):
        if sample.shape[0] * sample.shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, sample, *args, **kwargs)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", limited)
    editor = painter(pipelines["image"], batch_size=2, call={"strength": 1.0})
    found = list(editor.paint(jobs(4, striped(), striped(64), striped(64), striped())))
    assert reasons(found) == {"0": "painted", "1": OUT_OF_MEMORY, "2": OUT_OF_MEMORY, "3": "painted"}
    failure = next(one for one in found if one.id == "1")
    assert "out of memory" in failure.detail
    assert "painter.width=" in failure.help
    assert not failure.final


@pytest.mark.skipif(OLD, reason="transformers 5 cannot load the safety checker of diffusers 0.35")
def test_images_that_the_safety_checker_replaced_are_declined(pipelines, monkeypatch):
    found = list(painter(pipelines["checked"], batch_size=2).paint(jobs(3)))
    assert reasons(found) == dict.fromkeys("012", "declined")
    assert all(one.final for one in found)
    # Some of a batch: the checker itself says which.
    checker = diffusers.pipelines.stable_diffusion.StableDiffusionSafetyChecker
    monkeypatch.setattr(checker, "forward", lambda self, clip_input, images: (images, [False, True, False]))
    assert reasons(painter(pipelines["checked"], batch_size=3).paint(jobs(3))) == {
        "0": "painted",
        "1": "declined",
        "2": "painted",
    }


def test_a_black_image_is_never_kept(pipelines, monkeypatch):
    """Float16 that overflows gives one, without a word."""
    decode = diffusers.AutoencoderKL.decode
    monkeypatch.setattr(
        diffusers.AutoencoderKL, "decode", lambda self, z, **_: (decode(self, z, return_dict=False)[0] * torch.nan,)
    )
    (failure,) = painter(pipelines["text"]).paint(jobs(1))
    assert failure.reason == "declined"
    assert "painter.dtype=" in failure.help


def test_an_image_that_cannot_be_read_is_a_failure_of_its_own(pipelines, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(striped().bytes[:-30])  # the header is whole
    given = [striped(), ImageRef(path=str(damaged)), ImageRef(path=str(tmp_path / "gone.png")), striped(level=90)]
    found = list(painter(pipelines["edit"], batch_size=4).paint(jobs(4, *given)))
    assert reasons(found) == {"0": "painted", "1": "missing_image", "2": "missing_image", "3": "painted"}


def test_a_job_that_the_pipeline_rejects_does_not_take_others_with_it(pipelines, monkeypatch):
    check = diffusers.StableDiffusionPipeline.check_inputs

    def strict(self, prompt, *args, **kwargs):
        if "2" in (prompt if isinstance(prompt, str) else "".join(prompt)):
            raise ValueError("no twos")
        return check(self, prompt, *args, **kwargs)

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "check_inputs", strict)
    found = list(painter(pipelines["text"], batch_size=4).paint(jobs(4)))
    assert reasons(found) == {"0": "painted", "1": "painted", "2": "declined", "3": "painted"}
    assert any("no twos" in one.detail for one in found if isinstance(one, Failure))


def test_settings_with_which_every_image_fails_stop_the_work(pipelines):
    """The pipeline wants multiples of 8 (its own rule, found at the call)."""
    failed = []
    with pytest.raises(UserError) as refused:
        failed.extend(painter(pipelines["text"], width=20, height=20).paint(jobs(9)))
    assert "painter.path=" in str(refused.value)
    assert "20" in str(refused.value)
    assert len(failed) == FIRST_FAILURES - 1


def test_a_pipeline_that_edits_says_so_if_there_is_no_image(pipelines):
    (failure,) = painter(pipelines["edit"]).paint(jobs(1))
    assert failure.reason == "declined"
    assert "painter.path=" in failure.help


def test_weights_are_loaded_at_the_first_image_and_again_after_release(pipelines, monkeypatch):
    loaded = []
    load = diffusers.DiffusionPipeline.from_pretrained.__func__

    def counted(cls, path, **settings):
        loaded.append(settings)
        return load(cls, path, **settings)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", classmethod(counted))
    maker = painter(pipelines["text"])
    assert isinstance(maker, DiffusionPainter)
    assert (maker.usage(), loaded) == ("", [])
    first = pixels(maker.paint(jobs(1)))
    pixels(maker.paint(jobs(1)))
    assert len(loaded) == 1
    assert loaded[0]["use_safetensors"]
    kept = weakref.ref(maker._pipeline.unet)
    maker.release()
    assert kept() is None
    assert_equal(pixels(maker.paint(jobs(1))), first)
    assert len(loaded) == 2


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_that_of_the_settings(pipelines, dtype, expected):
    maker = painter(pipelines["text"], dtype=dtype)
    pixels(maker.paint(jobs(1)))
    assert {part.dtype for part in maker._pipeline.components.values() if isinstance(part, torch.nn.Module)} == {
        expected
    }


def test_nothing_is_drawn_on_the_screen(pipelines, capfd):
    import transformers

    transformers.utils.logging.disable_progress_bar()  # as every command does
    list(painter(pipelines["text"], steps=3).paint(jobs(1)))
    shown = "".join(capfd.readouterr())
    assert "%|" not in shown


def copied(source, folder):
    shutil.copytree(source, folder)
    return folder


def test_the_identity_changes_with_the_weights_the_vocabulary_and_the_settings(pipelines, tmp_path):
    def identity(path, **settings):
        return json.dumps(painter(str(path), **settings).identity | {"model": ""}, sort_keys=True)

    base = identity(pipelines["text"])
    same = copied(pipelines["text"], tmp_path / "same")
    (same / "README.md").write_text("A card.")
    assert identity(same) == base
    assert identity(pipelines["text"], batch_size=4, device="cpu") == base  # the images are the same
    others = {base, identity(pipelines["text"], steps=2), identity(pipelines["text"], dtype="bfloat16")}
    others |= {identity(pipelines["text"], call={"eta": 0.5}), identity(pipelines["text"], width=32, height=32)}
    weights = copied(pipelines["text"], tmp_path / "weights") / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(weights).items()}, weights)
    tokenizer = copied(pipelines["text"], tmp_path / "tokenizer") / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"a"', '"A"'))
    scheduler = copied(pipelines["text"], tmp_path / "scheduler") / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("1000", "999"))
    others |= {identity(tmp_path / name) for name in ("weights", "tokenizer", "scheduler")}
    assert len(others) == 8


@pytest.mark.parametrize("damage", ["part", "weight", "pickle"])
def test_an_incomplete_pipeline_is_not_used(pipelines, tmp_path, damage):
    folder = copied(pipelines["text"], tmp_path / "damaged")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    if damage == "weight":
        save_file({name: value for name, value in tensors.items() if name != "conv_in.weight"}, weights)
    else:
        weights.unlink()
    if damage == "pickle":
        torch.save(tensors, weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"painter\.path="):
        list(painter(str(folder)).paint(jobs(1)))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "painter.batch_size=0"),
        ({"dtype": "int8"}, "painter.dtype=int8"),
        ({"device": "gpu"}, "painter.device=gpu"),
        ({"offload": "disk"}, "painter.offload=disk"),
        ({"offload": "model", "device": "cpu"}, "painter.offload=model"),
        ({"steps": 0}, "painter.steps=0"),
        ({"width": 8, "height": -8}, "painter.height=-8"),
        ({"width": 64}, "painter.height="),
        ({"revision": "main"}, "painter.revision=main"),
        ({"call": {"negative_promt": "x"}}, "negative_prompt"),
        ({"call": {"prompt": "x"}}, "painter.call.prompt"),
        ({"call": {"generator": 1}}, "painter.call.generator"),
        ({"call": {"num_images_per_prompt": 2}}, "painter.call.num_images_per_prompt"),
        ({"call": {"guidance_scale": 2.0}}, "painter.guidance="),
        ({"call": {"num_inference_steps": 2}}, "painter.steps="),
        ({"extra": {"quality": "high"}}, "painter.extra="),
        ({"max_calls": 5}, "painter.max_calls=5"),
        ({"api_key_env": "MY_KEY"}, "painter.api_key_env"),
        ({"path": "/nowhere/pipeline"}, "painter.path=/nowhere/pipeline"),
        ({"base_url": "http://127.0.0.1:9/v1", "model": "m"}, "painter.base_url="),
    ],
)
def test_settings_that_cannot_be_are_refused_before_loading(pipelines, settings, named):
    with pytest.raises(UserError) as refused:
        painter(**({"path": pipelines["text"]} | settings))
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "named"), [({"width": 64}, "painter.width=64"), ({"height": 64}, "painter.height")]
)
def test_an_argument_that_the_pipeline_does_not_have_is_refused_before_loading(pipelines, settings, named):
    with pytest.raises(UserError) as refused:
        painter(pipelines["edit"], **settings)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    "index",
    [
        None,
        "{not json",
        '{"_class_name": "NoSuchPipeline"}',
        '{"_class_name": "UNet2DConditionModel"}',
        '{"_class_name": ["code", "MyPipeline"]}',
        '{"_class_name": "DDPMPipeline"}',
        "{}",
    ],
    ids=["absent", "damaged", "unknown", "no pipeline", "own code", "no prompt", "unnamed"],
)
def test_a_folder_that_is_no_pipeline_is_refused_before_loading(tmp_path, index):
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=r"painter\.path="):
        painter(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "named"), [({"offload": "model"}, "offload=model"), ({"device": "cuda:9"}, "cuda:9")]
)
def test_a_gpu_that_is_not_there_is_reported_before_loading(pipelines, monkeypatch, settings, named):
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(UserError, match=named):
        list(painter(pipelines["text"], **settings).paint(jobs(1)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("to", "cuda")),
        ({"device": "cuda:1"}, ("to", "cuda:1")),
        ({"offload": "model"}, ("enable_model_cpu_offload", "cuda")),
        ({"offload": "sequential", "device": "cuda:1"}, ("enable_sequential_cpu_offload", "cuda:1")),
    ],
)
def test_where_there_are_gpus_the_pipeline_is_placed_as_asked_for(pipelines, monkeypatch, settings, expected):
    """There is no GPU: what diffusers is asked to do is recorded, and not done."""
    placed = []
    monkeypatch.setattr(pipeline_loading, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for way in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            diffusers.DiffusionPipeline,
            way,
            lambda self, *given, device=None, way=way: placed.append((way, device or given[0])),
        )
    pipeline = pipeline_loading.load("painter", PainterSettings(path=pipelines["text"], **settings))
    assert placed == [expected]
    assert pipeline.unet.dtype == torch.bfloat16


def test_a_pipeline_that_does_not_fit_says_which_settings_need_less_memory(pipelines, monkeypatch):
    def to(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "to", to)
    with pytest.raises(UserError, match=r"painter\.offload=model"):
        list(painter(pipelines["text"]).paint(jobs(1)))


def test_without_diffusers_the_message_says_how_to_install_it(pipelines, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"vsil-align\[construct\]"):
        painter(pipelines["text"])


HUB = """
import sys
from align.construction.painters.build import build_painter
from align.construction.painters.painter import Painting
from align.errors import UserError
from align.settings import PainterSettings

def paint(path, revision):
    maker = build_painter("painter", PainterSettings(path=path, revision=revision, steps=1))
    print("known", maker.edits, flush=True)
    return [type(found).__name__ for found in maker.paint([Painting("a", "a cat", 1)])]

try:
    paint("acme/other", "main")
except UserError as error:
    print("refused" if "painter.path=acme/other" in str(error) else error)
print(*paint("acme/text", sys.argv[1]))
"""


@pytest.mark.slow
def test_a_pipeline_on_the_hub_is_known_by_one_small_file(pipelines, tmp_path):
    """The hub is a server on the loopback; the client is the real one, in a process of its own."""
    with hub_server({"acme/text": Path(pipelines["text"])}) as hub:
        network = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
        done = call([sys.executable, "-c", HUB, COMMIT], ROOT, timeout=300, **network)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "known", "False", "Painted"]
    assert hub.downloaded[0] == "model_index.json"

"""Diffusers pipelines that fail: memory, safety checkers, unreadable images, rejected jobs."""

import importlib.util
import weakref
from importlib.metadata import version

import pytest
import torch

if importlib.util.find_spec("diffusers") is None:
    pytest.skip("diffusers is not installed: pip install 'vsil-align[construct]'", allow_module_level=True)


from align.answering.conversation import Failure
from align.construction.painters.diffusion import FIRST_FAILURES, DiffusionPainter
from align.construction.painters.painter import OUT_OF_MEMORY
from align.errors import UserError
from align.rows import ImageRef
from tests.support.painting import assert_equal, diffusers, jobs, painter, pixels, reasons, striped

OLD = version("diffusers").startswith("0.35.")

pytestmark = [pytest.mark.slow, pytest.mark.long]  # diffusers takes long to import


@pytest.fixture
def short_of_memory(monkeypatch):
    """A function: the denoiser raises this error for more than so many images. -> sizes that were
    tried, and whether memory was kept.
    """

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

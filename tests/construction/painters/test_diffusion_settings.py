"""Settings of diffusers pipelines: identity, what is refused before loading, devices, the Hub."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("diffusers") is None:
    pytest.skip("diffusers is not installed: pip install 'vsil-align[construct]'", allow_module_level=True)

from safetensors.torch import load_file, save_file

from align.construction.painters import pipeline_loading
from align.errors import UserError
from align.settings import PainterSettings
from tests.support.hub_mirror import COMMIT, hub_server
from tests.support.launch import ROOT, call
from tests.support.painting import diffusers, jobs, painter

pytestmark = [pytest.mark.slow, pytest.mark.long]  # diffusers takes long to import


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

"""Fixtures that many tests share: the pretrained tiny models, small rows, and the reference data
where it is at hand.
"""

from __future__ import annotations

import copy
import gc
import os
import signal
from functools import cache
from pathlib import Path

import pytest

from align.answering.budget import begin_command
from align.console import show_log

# A helper that asserts says as much of what it found as a test.
pytest.register_assert_rewrite("tests.support")

REAL = {"llava": "llava-1.5-7b-hf", "qwen2_vl": "qwen2-vl-7b-instruct"}
"""Folders of the real processor files, below `hub/` of the reference data."""

# Servers of tests are on the loopback, without TLS. A client loads the machine's certificates all
# the same, each one anew: from here none.
os.environ.setdefault("SSL_CERT_DIR", str(Path(__file__).parent))

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The mark `slow_for_qwen2_vl` makes a test slow under that family alone; `slurm` makes every
    test slow, and one of the first.

    What waits for SLURM's clock leaves its core to others, while there are others.
    """
    for item in items:
        if item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.long)
        if item.get_closest_marker("slow_for_qwen2_vl") and "qwen2_vl" in item.name:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


show_log()  # tests read what commands print


def pytest_collection_finish():
    """Where tests are run: not in the process that only hands them out, which need not wait for torch."""
    import torch

    # Bitwise claims hold at a fixed thread count, and tests run in as many processes as there are cores.
    torch.set_num_threads(1)
    # What was imported by now stays: the collector need not go through these millions of objects
    # again with every model.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def new_command():
    """Nothing is spent yet: a server of another test may have had the same port."""
    begin_command()


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A working folder and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_waits(monkeypatch):
    """A request that failed is sent again at once."""
    monkeypatch.setattr("align.answering.sending.FIRST_WAIT", 0.001)


@pytest.fixture(scope="session", params=["llava", "qwen2_vl"])
def family_name(request) -> str:
    """Both families, one after the other."""
    return request.param


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function: family -> folder of its untrained tiny model, with fixed weights."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        import torch

        from align.miniature.models import build

        if family not in folders:
            torch.manual_seed(0)
            model, processor = build(family)
            folders[family] = tmp_path_factory.mktemp(f"tiny-{family}")
            model.save_pretrained(folders[family])
            processor.save_pretrained(folders[family])
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def loaded(tiny):
    """A function: family -> a tiny model as it was loaded, with its processor and family: a copy of one's own."""
    from align.models.loading import load
    from align.settings import ModelSettings

    read = cache(lambda family: load(ModelSettings(name="tiny", path=str(tiny(family)), dtype="float32")))
    return lambda family: copy.deepcopy(read(family))


@pytest.fixture(scope="session")
def renderer(loaded):
    """A function: family -> its renderer, as a run has it."""
    from align.batches.rendering import Renderer
    from align.fast.renderer import renderer_of

    def make(family: str) -> Renderer:
        it = loaded(family)
        return renderer_of(it.processor, it.family)

    return make


@pytest.fixture(scope="session", params=["miniature", "real"])
def any_renderer(request, family_name, renderer):
    """The renderer of both families, miniature and real."""
    if request.param == "miniature":
        return renderer(family_name)
    from align.families import family_of
    from align.fast.renderer import renderer_of
    from align.models.processors import load_processor

    shared: Path = request.getfixturevalue("shared")
    return renderer_of(load_processor(str(shared / "hub" / REAL[family_name])), family_of(family_name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data that is not part of the project: real processor files, published sets."""
    if "ALIGN_SHARED" not in os.environ:
        pytest.skip(
            "ALIGN_SHARED is unset: it names a folder with hub/ (real processor files) and data/ (published sets)"
        )
    return Path(os.environ["ALIGN_SHARED"])


@pytest.fixture(scope="session")
def mini_rows():
    """A few rows of every kind: text-only harmful and benign, image harmful and benign."""
    from align.miniature.rows import training_rows
    from align.settings import Part

    subsets = ("text_harmful", "text_benign", "image_harmful", "image_benign")
    return {subset: training_rows(Part(source="miniature", subset=subset, rows=6)) for subset in subsets}

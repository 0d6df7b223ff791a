"""Pipelines and batches that tests of painters share."""

import pytest

from align.construction.painters import pipeline_loading
from tests.support.tiny_pipelines import save_pipelines


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """{name: folder} of tiny pipelines; built once, because diffusers takes seconds to import."""
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vsil-align[construct]'")
    return save_pipelines(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The same on every machine."""
    monkeypatch.setattr(pipeline_loading, "has_gpu", lambda: False)


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that the denoiser gets; without guidance it gets every image once."""
    import diffusers

    sizes = []
    forward = diffusers.UNet2DConditionModel.forward

    def counted(self, sample, *args, **kwargs):
        sizes.append(len(sample))
        return forward(self, sample, *args, **kwargs)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", counted)
    return sizes

"""A cache for tests of what a run keeps of its rows."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own; a GPU is not used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return tmp_path / "cache" / "vsil-align"

"""What is kept for the user (pixel hashes, parquet cells) goes into a folder of the tests."""

import pytest


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
    """One for all tests of a process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "user-cache"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test, and nothing known from another one."""
    from align.data import images

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images._pixel_hash.cache_clear()
    return tmp_path / "cache" / "vsil-align" / f"pixels-{images.DECODING}"

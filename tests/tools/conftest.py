"""These tests keep what is kept for the user as those of align/data do. An original LLaVA
checkpoint for those that convert it.
"""

import pytest

from tests.data.conftest import user_cache as user_cache


@pytest.fixture(scope="module")
def original():
    """The checkpoint in memory."""
    from tests.support.original_llava import original_llava

    return original_llava()


@pytest.fixture
def tower(original, tmp_path):
    """The folder of its CLIP."""
    from tests.support.original_llava import write_tower

    return write_tower(original, tmp_path / "clip")

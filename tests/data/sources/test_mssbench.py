"""MSSBench's pairs as twins."""

import pytest

from align.errors import UserError
from tests.support.published import (
    mssbench,
)
from tests.support.reading import counted, read


def test_mssbench_without_twins_says_what_it_is_for(tmp_path):
    with pytest.raises(UserError, match="source=mssbench: .*pairs and no responses; set twins=true"):
        read("mssbench", mssbench(tmp_path))


def test_mssbenchs_pairs_are_twins_on_the_side_of_the_image(tmp_path):
    mssbench(tmp_path)
    unsafe, safe = (read("mssbench", tmp_path, twins=True, subset=subset).rows for subset in ("free", "benign"))
    assert counted(unsafe) == {("harmful", "image"): 4}
    assert counted(safe) == {("benign", "none"): 4}
    assert (
        [row.id for row in unsafe]
        == [row.id for row in safe]
        == ["chat-1-1", "chat-1-2", "embodied-1-1", "embodied-1-2"]
    )
    assert [row.item for row in unsafe] == [row.item for row in safe]
    assert unsafe[3].prompt == "Fill it up with water."
    assert safe[3].prompt == "Fill it with water."
    assert all(mine.images != other.images for mine, other in zip(unsafe, safe, strict=True))

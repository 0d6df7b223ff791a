"""Hashes of pixels are kept: an image is decoded once, and again only where its file changed or the
cache is damaged.
"""

import json
import os

import pytest

from align.data import images
from align.data.pixels import hashes_of
from align.rows import ImageRef, Row
from tests.support.odd_images import png

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def decodes(monkeypatch):
    """The images that were decoded, one after the other; each call of the fixture's function is a
    new process, as it were.
    """
    decoded = []
    load = images.load_image

    def counted(image, where):
        decoded.append(image.path.rpartition("/")[2])
        return load(image, where)

    monkeypatch.setattr(images, "load_image", counted)

    def run(folder):
        decoded.clear()
        images._pixel_hash.cache_clear()
        files = [ImageRef(path=str(file)) for file in sorted(folder.glob("*.png"))]
        return hashes_of([Row("r", "p", tuple(files))]), sorted(decoded)

    return run


@pytest.fixture
def three(tmp_path):
    folder = tmp_path / "three"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(10, 20, 200 + i))
    return folder


def test_a_second_run_decodes_nothing(three, decodes):
    first, decoded = decodes(three)
    assert decoded == ["0.png", "1.png", "2.png"]
    assert len(set(first.values())) == 3
    assert decodes(three) == (first, [])


def test_a_file_that_changed_is_decoded_anew_though_its_size_is_the_same(three, decodes):
    before, _ = decodes(three)
    old = (three / "1.png").stat()
    new = png(10, 20, 210)
    assert len(new) == old.st_size
    (three / "1.png").write_bytes(new)
    os.utime(three / "1.png", ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    after, decoded = decodes(three)
    assert decoded == ["1.png"]
    assert [before[image] == after[image] for image in sorted(after, key=str)] == [True, False, True]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: "not json",
        lambda line: "[]",
        lambda line: "7",
        lambda line: '[["a"], 1, 2, "x"]',
        lambda line: json.dumps([*json.loads(line)[:-1], None]),
        lambda line: json.dumps([*json.loads(line)[:-1], "None"]),
        lambda line: json.dumps([*json.loads(line)[:-1], json.loads(line)[-1][:60]]),
        lambda line: "\udcff\udcfe",
    ],
)
def test_a_damaged_line_of_the_cache_is_found_anew(three, decodes, cache, damage):
    first, _ = decodes(three)
    (file,) = cache.glob("*.jsonl")
    lines = file.read_text().splitlines()
    name = json.loads(lines[1])[0].rpartition("/")[2]
    lines[1] = damage(lines[1])
    file.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
    assert decodes(three) == (first, [name])
    assert decodes(three) == (first, [])


def test_a_cache_that_cannot_be_written_only_costs_time(three, decodes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first, decoded = decodes(three)
    assert len(decoded) == 3
    assert decodes(three) == (first, decoded)


def test_a_image_that_cannot_be_read_is_not_kept(three, decodes, cache):
    (three / "1.png").write_bytes(b"no image")
    found, _ = decodes(three)
    assert [isinstance(digest, str) for _, digest in sorted(found.items(), key=str)] == [True, False, True]
    assert "1.png" in decodes(three)[1]

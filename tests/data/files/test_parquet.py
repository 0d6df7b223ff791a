"""Images in the cells of parquet files."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from align.data.files.parquet import image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_file_that_was_replaced_and_has_kept_its_time_is_read_anew(tmp_path):
    """As rsync -a and tar leave it: `datasets` alone would give the former file's images."""
    file = tmp_path / "test.parquet"

    def write(value):
        pyarrow.parquet.write_table(pa.Table.from_pylist([{"image": {"bytes": value, "path": None}}]), file)
        os.utime(file, (1_000_000_000, 1_000_000_000))

    write(b"former")
    assert image(file, "0/image") == b"former"
    write(b"latter")
    assert image(file, "0/image") == b"latter"


def test_threads_that_read_a_file_first_open_it_once(tmp_path, monkeypatch):
    """`datasets` opened by two threads at once failed now and then, and good images counted as unreadable."""
    file = tmp_path / "test.parquet"
    rows = [{"image": {"bytes": bytes([i]), "path": f"{i}.png"}} for i in range(4)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    opened, really = [], datasets.Dataset.from_parquet
    monkeypatch.setattr(
        datasets.Dataset, "from_parquet", lambda path, **more: opened.append(path) or really(path, **more)
    )
    together = threading.Barrier(4)

    def read(row):
        together.wait(30)
        return image(file, f"{row}/image")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [b"\x00", b"\x01", b"\x02", b"\x03"]
    assert opened == [str(file)]

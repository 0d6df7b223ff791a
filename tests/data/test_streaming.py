"""Images are decoded when they are needed: what a process holds does not grow with their number."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.published import write_image

READ = """
import sys, psutil
from align.data.images import load_image
from align.data.local import read_file
from align.methods.trainer import to_dataset
from align.rows import Row
from align.settings import Part

held = lambda: psutil.Process().memory_info().rss
before = held()
rows = read_file("test", Part(path=sys.argv[1]), "benign").rows
dataset = to_dataset(rows)
after = held()
for record in dataset.select(range(0, len(dataset), max(len(dataset) // 1000, 1))):
    row = Row.from_dict({key: value for key, value in record.items() if key != "index"})
    assert load_image(row.images[0], row.id).size == (512, 512)
print(len(rows), after - before, held() - after)
"""


@pytest.mark.slow
@pytest.mark.long
def test_memory_is_flat_from_a_thousand_rows_to_a_hundred_thousand(tmp_path):
    """Decoded, an image is 786 KB: a hundred thousand of them would be 79 GB."""
    for i, colour in enumerate(("red", "green", "blue", "white")):
        write_image(tmp_path / f"{i}.png", colour, (512, 512))
    found = {}
    for size in (1_000, 100_000):
        folder = tmp_path / str(size)
        (folder / "images").mkdir(parents=True)
        with (folder / "rows.jsonl").open("w") as file:
            for i in range(size):
                (folder / "images" / f"{i}.png").hardlink_to(
                    tmp_path / f"{i % 4}.png"
                )  # a file has no more than 65,000 names
                record = {"prompt": f"What is number {i}?", "image": f"images/{i}.png", "response": "A red square."}
                file.write(json.dumps(record) + "\n")
        command = [sys.executable, "-c", READ, str(folder / "rows.jsonl")]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True, timeout=300)
        found[size] = [int(number) for number in done.stdout.split()]
    assert [found[size][0] for size in found] == [1_000, 100_000]
    # A row's texts and the name of its image: a few thousand bytes.
    assert found[100_000][1] < 100_000 * 6_000
    # Of a thousand decoded images none is held, however many there are beside.
    assert all(found[size][2] < 60 << 20 for size in found)

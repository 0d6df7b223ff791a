"""What the tests of published layouts share: small files as publications lay them out, and what
`align data` finds in them.
"""

import csv
import json
import shutil
from pathlib import Path

from PIL import Image

from align.commands.data import main

HARMS = {"text": 0, "image": 0, "both": 0, "none": 0}


def write_image(path: Path, shade: int = 0) -> None:
    """A small image, other pixels for another shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def zipped(folder: Path) -> Path:
    """The folder as an archive of it, as a browser or a hub hands it over; the folder itself is gone."""
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    return folder.with_suffix(".zip")


def summaries(capsys, *arguments: str) -> list[dict]:
    """The objects that `align data ... summary=true` prints."""
    capsys.readouterr()
    assert main([*arguments, "summary=true"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def counted(summary: dict) -> dict:
    """Of a summary what can be counted by hand."""
    keys = ("rows", "roles", "harm_in", "images", "missing_images", "categories", "facts")
    return {key: summary[key] for key in keys}

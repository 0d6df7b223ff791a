"""Small constructions: their arguments, painters that need no model, and what they wrote."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

CATEGORIES = "categories={kitchen: [stoves, tables]}"


def painter(jobs):
    """An image of the job's seed and prompt."""
    for job in jobs:
        image = Image.new("RGB", (24, 24), tuple(job.seed // 256**i % 256 for i in range(3)))
        ImageDraw.Draw(image).text((2, 2), job.prompt[-3:], fill=(255, 255, 255))
        yield image


def twin_editor(jobs):
    """The job's image, turned on its side: another image that depends on both."""
    for job in jobs:
        with Image.open(job.image.path) as image:
            edited = image.rotate(90)
            edited.putpixel((0, 0), tuple(job.seed // 256**i % 256 for i in range(3)))
            yield edited


PAINTERS = [
    "painter.use=tests.support.construction:painter",
    "twin_editor.use=tests.support.construction:twin_editor",
]


def served(server, folder: Path, *more: str) -> list[str]:
    """Arguments of a construction whose roles are behind a server."""
    fixed = [CATEGORIES, "elements=2", "queries=2", "image_distance=null", "certify=false", "chunk=100"]
    return ["construct", *fixed, *PAINTERS, *server.settings(), f"output_dir={folder}", *more]


def mini(folder: Path, *more: str) -> list[str]:
    """Arguments of a small construction in the miniature."""
    few = ["certificate.max_r2=0.2", "certificate.max_unsafe_twins=0.2"]  # the interval of no hit among so few
    fixed = ["recipe=construct/miniature", "elements=2", "queries=2", "certificate.model=null", *few]
    return ["construct", *fixed, f"output_dir={folder}", *more]


def lines(file: Path) -> list[dict]:
    """The records of a jsonl file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def step_file(folder: Path, step: str) -> Path:
    """The only file of a step."""
    (file,) = (folder / "steps").glob(f"*-{step}-*.jsonl")
    return file


def funnel(folder: Path) -> dict[str, dict]:
    """{step: its part of the funnel}."""
    return {step["step"]: step for step in json.loads((folder / "funnel.json").read_text())["steps"]}


def result(folder: Path) -> dict[str, bytes]:
    """What a construction gives, but for seconds: {file: content}, with all images of the result."""
    found = {name: (folder / name).read_bytes() for name in ("twins.jsonl", "benchmark.jsonl", "images.jsonl")}
    images = [row[key] for row in lines(folder / "twins.jsonl") for key in ("image", "benign_image")]
    found |= {image: (folder / image).read_bytes() for image in images}
    counted = json.loads((folder / "funnel.json").read_text())
    for step in counted["steps"]:
        for of_role in step["roles"].values():
            of_role.pop("seconds")
    return found | {"funnel.json": json.dumps(counted).encode()}

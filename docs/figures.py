"""The images of the README, from the comparison that `make compare` left in runs/compare:

make images

The bar chart of the paper track, and the upper part of the page of `align report` in Debian's
Chromium (driven by playwright, pip install -e ".[browser]").
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

PAGE = Path("runs/compare/report.html")
CHART = Path("runs/compare/paper.png")
WIDTH = 1650
"""Pixels of the chart in the README."""
FOLDER = Path(__file__).parent / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


def main() -> None:
    """Take both images."""
    from playwright.sync_api import sync_playwright

    if not PAGE.is_file():
        sys.exit(f"{PAGE} is not there: `make compare` first")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1180, "height": 1000}, color_scheme="light", device_scale_factor=1.25
        )
        page.goto(PAGE.absolute().as_uri())
        end = page.locator("#leak").bounding_box()
        assert end is not None
        upper = {"x": 0, "y": 0, "width": 1180, "height": end["y"] + end["height"]}
        save("report.png", page.screenshot(full_page=True, clip=upper))
        browser.close()
    save_chart()


def save_chart() -> None:
    """Keep the bar chart, smaller."""
    chart = Image.open(CHART).convert("RGB")
    chart = chart.resize((WIDTH, round(WIDTH * chart.height / chart.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    chart.save(buffer, format="PNG")
    save("paper.png", buffer.getvalue())


def save(name: str, image: bytes) -> None:
    """Keep an image, in 256 colours."""
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / name
    Image.open(io.BytesIO(image)).convert("RGB").quantize(256, kmeans=4, dither=Image.Dither.NONE).save(
        file, optimize=True
    )
    print(f"{file}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

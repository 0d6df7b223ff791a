"""`align report`: write one HTML page from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.config.compose import compose
from align.errors import UserError
from align.files import sayable, write_text
from align.report.find_runs import read_runs
from align.report.findings import findings
from align.report.funnel import read_funnels
from align.report.leakage import leak_lines
from align.report.page.page import Room, page
from align.settings import ReportConfig


def main(arguments: Sequence[str]) -> int:
    """Write the page. Raises UserError."""
    config: ReportConfig = compose(ReportConfig, arguments).config
    if config.examples < 0 or config.images_mb < 0:
        raise UserError(f"examples={config.examples}, images_mb={config.images_mb}: expected 0 or more")
    runs, notes = read_runs(config.runs, config.leaks)
    places = [Path(config.runs), *([Path(config.leaks)] if config.leaks else [])]
    folders = [place if place.is_dir() else place.parent for place in places]
    leaks, damaged = leak_lines(folders)
    funnels, damaged_funnels = read_funnels(folders)
    room = Room(config.examples, config.images_mb)
    text = page(findings(runs), leaks, [*notes, *damaged, *damaged_funnels], room, config.title, funnels)
    output = Path(config.output or Path(config.runs, "report.html"))
    write_text(output, sayable(text))
    print(f"Written: {output} ({len(text.encode()) / 1e6:.1f} MB). Open it in a browser; it needs no network.")
    return 0

"""`align table`: tables from run folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from align.config import compose
from align.errors import UserError
from align.files import write_text
from align.report.collect import collect
from align.report.tables import comma_separated, markdown, sorted_rows
from align.settings import TableConfig


def main(arguments: Sequence[str]) -> int:
    """Print or write the table. Raises UserError."""
    config: TableConfig = compose(TableConfig, arguments).config
    if not Path(config.runs).is_dir():
        raise UserError(f"runs={config.runs}: not a folder")
    rows, notes = collect(Path(config.runs))
    formats = {
        "md": lambda: markdown(rows, notes),
        "csv": lambda: comma_separated(rows),
        "json": lambda: json.dumps({"schema": 1, "rows": sorted_rows(rows), "notes": notes}, indent=2) + "\n",
    }
    if config.format not in formats:
        raise UserError(f"format={config.format}: expected one of {', '.join(formats)}")
    text = formats[config.format]()
    if config.output:
        write_text(Path(config.output), text)
    else:
        sys.stdout.write(text)
    if config.format == "csv":
        for note in notes:
            print(note, file=sys.stderr)
    return 0

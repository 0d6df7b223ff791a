"""What the tests of published layouts share: small files as publications lay them out, and what
`align data` finds in them.
"""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet
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


def write_parquet(path: Path, rows: list[dict[str, object]], image: str) -> None:
    """A table as the hub has it, with images in the cells of the column `image`, which gives their shades."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = []
    for row in rows:
        encoded = io.BytesIO()
        Image.new("RGB", (4, 4), (int(str(row[image])), 0, 0)).save(encoded, "PNG")
        cells.append(row | {image: {"bytes": encoded.getvalue(), "path": None}})
    pyarrow.parquet.write_table(pa.Table.from_pylist(cells), path)


def write_xlsx(path: Path, rows: list[dict[str, object]], shared: bool = True) -> None:
    """A workbook of one sheet, as spreadsheet programs write it: texts are `shared` or in their cells,
    numbers are numbers, and an empty cell (None) is no cell at all.
    """
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    names = list(rows[0])
    table: list[str] = []

    def cell(place: str, value: object) -> str:
        if isinstance(value, int):
            return f'<c r="{place}"><v>{value}</v></c>'
        if not shared:
            return f'<c r="{place}" t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
        table.append(str(value))
        return f'<c r="{place}" t="s"><v>{len(table) - 1}</v></c>'

    def row(number: int, values: list[object]) -> str:
        cells = [cell(f"{chr(65 + i)}{number}", value) for i, value in enumerate(values) if value is not None]
        return f'<row r="{number}">{"".join(cells)}</row>'

    lines = [row(1, list(names)), *(row(i, [one.get(name) for name in names]) for i, one in enumerate(rows, start=2))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
        )
        if shared:
            texts = "".join(
                f"<si><r><t>{escape(text[:3])}</t></r><r><t>{escape(text[3:])}</t></r></si>" for text in table
            )
            book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{main}">{texts}</sst>')


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

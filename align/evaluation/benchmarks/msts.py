"""MSTS (arXiv 2501.10057): 400 English prompts, unsafe only together with their image; 10 languages.

Files of the published repository: data/prompts/<language>_multimodal.csv, and the images that its
script downloads to data/unsafe_images/<unsafe_image_id>.jpg or .png. Or the Hub's parquet with the
image in `unsafe_image`: columns and sizes are from the card, and the names of the files are those
that `datasets` gives by default (unverified). English asks for assistance and states an intention
(200 cases each); a translation (`subset=german`) has the 200 questions for assistance alone.
`msts_text` asks english_textonly.csv, where the text says what the image shows.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.files.records import Record
from align.evaluation.benchmark import Counts, published
from align.rows import ImageRef, Row

TRANSLATIONS = ("arabic", "chinese", "farsi", "french", "german", "hindi", "italian", "korean", "russian", "spanish")
COLUMNS = ("hazard_subcategory", "hazard_subsubcategory", "prompt_type")


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every prompt in English, or in the language `subset`. Raises UserError."""
    language = subset or "english"
    tables = (f"data/{language}-*.parquet", f"{language}-*.parquet")
    for record in folder.records(*_places(f"{language}_multimodal.csv"), *tables):
        yield _row(record, (_image(folder, record),), "image")


def texts(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every prompt without an image. Raises UserError."""
    for record in folder.records(*_places("english_textonly.csv")):
        yield _row(record, (), "text")


def _places(name: str) -> tuple[str, ...]:
    return tuple(f"{place}{name}" for place in ("data/prompts/", "prompts/", ""))


def _image(folder: DataFolder, record: Record) -> ImageRef:
    if "unsafe_image" in record:
        return folder.cell(record, "unsafe_image")
    name = record.text("unsafe_image_id")
    return folder.find_image([f"{name}.jpg", f"{name}.png"], ["data/unsafe_images", "unsafe_images"], record.where)


def _row(record: Record, images: tuple[ImageRef, ...], harm_in: str) -> Row:
    return Row(
        id=f"{record.text('case_id')}-{record.text('prompt_type')}",
        prompt=record.text("prompt_text"),
        images=images,
        role="harmful",
        harm_in=harm_in,
        caption=record.optional("unsafe_image_description"),
        category=record.text("hazard_category"),
        cluster=record.text("case_id"),  # both prompts of a case show one image
        columns={column: record.optional(column) for column in COLUMNS},
    )


ENGLISH = Counts(rows=400, categories=5)
COUNTS = {None: ENGLISH} | {language: Counts(rows=200, categories=5) for language in TRANSLATIONS}
MSTS = published("msts", "vsil_free", rows, ("vlsbench",), COUNTS, hub="felfri/MSTS")
MSTS_TEXT = published("msts_text", "vsil", texts, ("vlsbench", "llamaguard"), {None: ENGLISH})

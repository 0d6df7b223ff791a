"""Twins, the items of the controlled track: one unsafe request, stated in three ways, and its safe counterpart.

A twin has an unsafe image, a query that names the harm, a neutral query that does not, a caption, a
safe response, and optionally a harmful response; and a safe image with a caption, for which the same
neutral query deserves a helpful response.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

from align.data.files.folder import DataFolder, DataLocation
from align.data.files.records import Record, brief, text_column
from align.data.reading import check_subset
from align.errors import UserError
from align.rows import ImageRef, Row
from align.settings import Part

TEXTS = ("caption", "query_leak", "query_free", "response", "benign_caption", "benign_response")
QUERIES = ("query_leak", "query_free")
"""The texts that an evaluation needs: it does not compare with responses, and only one view shows captions."""
IMAGES = ("image", "benign_image")
SUBSETS = ("leak", "free", "benign", "pairs")


@dataclass(frozen=True)
class Twin:
    """One item; the fields are the columns of a file of twins."""

    id: str
    image: ImageRef
    caption: str | None
    query_leak: str
    query_free: str
    response: str | None
    benign_image: ImageRef
    benign_caption: str | None
    benign_response: str | None
    harmful_response: str | None = None
    """The response to unlearn or reject; the same in every arm, for any query about the unsafe image."""
    source: str = ""


def rows_of(twin: Twin, subset: str) -> list[Row]:
    """Rows of a subset: the unsafe image with its leaking or its neutral query, the safe image, or the pair.

    Every row keeps the twin's id, so that arms with different subsets train on the same items. Chosen and
    rejected: for the unsafe image the safe and the harmful response; for the safe image the helpful
    response and the safe one, which would be a refusal here.
    """
    item = _identity(twin)
    unsafe = Row(
        id=twin.id,
        item=item,
        prompt=twin.query_free,
        images=(twin.image,),
        response=twin.response,
        chosen=twin.response,
        rejected=twin.harmful_response,
        harmful_response=twin.harmful_response,
        role="harmful",
        harm_in="image",
        caption=twin.caption,
        twin=twin.id,
        source=twin.source,
        cluster=twin.image.name or twin.id,
        # A model responds differently to a neutral query and one that names the harm; arms must
        # have the same responses.
        asked=twin.query_leak,
    )
    safe = Row(
        id=twin.id,
        item=item,
        prompt=twin.query_free,
        images=(twin.benign_image,),
        response=twin.benign_response,
        chosen=twin.benign_response,
        rejected=twin.response,
        caption=twin.benign_caption,
        twin=twin.id,
        source=twin.source,
        cluster=twin.benign_image.name or f"{twin.id}-safe",
    )
    if subset == "leak":
        return [replace(unsafe, prompt=twin.query_leak, harm_in="both")]
    if subset == "pairs":
        return [replace(unsafe, id=f"{twin.id}-unsafe"), replace(safe, id=f"{twin.id}-safe")]
    return [unsafe if subset == "free" else safe]


def _identity(twin: Twin) -> str:
    """A hash of the whole item, with its images by file or bytes; it is the same in all arms."""
    record = {key: value for key, value in asdict(twin).items() if key != "source"}
    return hashlib.sha256(repr(sorted(record.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read(part: Part) -> list[Row]:
    """The source `twins`: one subset of the file at `part.path`. Raises UserError."""
    check_subset("source=twins", part.subset, SUBSETS, needed=True)
    return [row for twin in read_twins("source=twins", part) for row in rows_of(twin, str(part.subset))]


def read_twins(what: str, where: DataLocation, trained: bool = True) -> list[Twin]:
    """The twins of a jsonl, json, csv or parquet file. Raises UserError that names file, row and column.

    Responses and captions may be absent or blank if no model is `trained` on them.
    """
    folder = DataFolder.open(what, where)
    twins: dict[str, Twin] = {}
    for record in folder.rows():
        twin = _twin(record, folder, trained)
        if twin.id in twins:
            raise UserError(f"{record.where}: id {brief(twin.id)} occurs twice; make ids unique")
        twins[twin.id] = twin
    return list(twins.values())


def _twin(record: Record, folder: DataFolder, trained: bool) -> Twin:
    where = record.where
    needed = TEXTS if trained else QUERIES
    lacking = [column for column in ("id", *IMAGES, *needed) if record.get(column) in (None, "")]
    if lacking:
        raise UserError(
            f"{where}: a twin has no {', '.join(lacking)}; expected the columns id, {', '.join((*IMAGES, *needed))}, "
            f"found {', '.join(map(str, record)) or 'nothing'}"
        )
    texts = {column: text_column(record, column, where) for column in (*TEXTS, "harmful_response")}
    blank = [column for column, text in texts.items() if text is not None and not text.strip()]
    if refused := [column for column in blank if trained or column in QUERIES]:
        raise UserError(f"{where}: `{refused[0]}` is empty")
    texts |= dict.fromkeys(blank)
    images = {column: folder.cell(record, column) for column in IMAGES}
    if images["image"] == images["benign_image"]:
        raise UserError(f"{where}: `image` and `benign_image` are the same file, expected an unsafe and a safe image")
    return Twin(id=record.name("id"), source=folder.name, **texts, **images)  # type: ignore[arg-type]

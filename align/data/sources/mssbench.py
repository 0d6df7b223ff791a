"""MSSBench (arXiv 2410.06172): the same query with a safe and with an unsafe image, in a chat and to an embodied agent.

Files: combined.json (combine.json in the authors' code), {chat: [...], embodied: [...]}, and the images
in chat/ and embodied/; all in one folder, or in mssbench/ or mssbench.zip in this folder. 600 chat
pairs (300 situations with two queries) and 380 agent pairs: 1,960 rows. The two instructions of an
agent pair may differ in words. The dataset has no responses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from align.data.files.folder import DataFolder
from align.data.files.records import Record, as_text, shown
from align.data.hints import option
from align.data.reading import Read, check_subset
from align.errors import UserError
from align.rows import ImageRef, Row
from align.settings import Part

HUB = "kzhou35/mssbench"
INDEXES = ("combined.json", "combine.json")
TASKS = ("chat", "embodied")
TWINS = {"free": "harmful", "benign": "benign"}


@dataclass(frozen=True)
class _Fields:
    safe_image: str
    unsafe_image: str
    safe_queries: str
    unsafe_queries: str
    category: str


FIELDS = {
    "chat": _Fields("safe_image_path", "unsafe_image_path", "queries", "queries", "Type"),
    "embodied": _Fields("safe", "unsafe", "safe_instructions", "unsafe_instructions", "category"),
}


def read(part: Part) -> Read:
    """The source `mssbench`, only for the controlled track: its pairs as twins. Raises UserError."""
    what = "source=mssbench"
    if not part.twins:
        raise UserError(
            f"{what}: this dataset has pairs and no responses; set {option('twins=true')}, and "
            f"{option('answers=<file>')} or "
            f"{option('response=generate')}"
        )
    if part.subset == "leak":
        raise UserError(
            f"{what} twins=true: {option('subset=leak')}: its twins are one query with an unsafe and a safe image. "
            "They have no query that names the harm and no caption, so the arms text_leak, image_leak, shuffled_leak "
            "and caption_free cannot use them; the arm image_free can. For text_leak, image_leak and shuffled_leak "
            f"use {option('source=vlguard')}"
        )
    check_subset(f"{what} twins=true", part.subset, TWINS, needed=True)
    folder = DataFolder.open(what, part, HUB)
    rows = [row for task in TASKS for row in pairs(folder, task) if row.role == TWINS[str(part.subset)]]
    return Read([replace(row, id=str(row.twin)) for row in rows])


def pairs(folder: DataFolder, task: str) -> Iterator[Row]:
    """Two rows per pair of a task; the row with the unsafe image is first. Raises UserError."""
    fields, folder = FIELDS[task], folder.holding(INDEXES, ("mssbench",))
    for record in folder.records(*INDEXES, part=task):
        safe_image = folder.image(f"{task}/{record.text(fields.safe_image)}", record.where)
        unsafe_image = folder.image(f"{task}/{record.text(fields.unsafe_image)}", record.where)
        safe, unsafe = _queries(record, fields.safe_queries), _queries(record, fields.unsafe_queries)
        if len(safe) != len(unsafe):
            raise UserError(
                f"{record.where}: {len(safe)} `{fields.safe_queries}` and {len(unsafe)} `{fields.unsafe_queries}`, "
                "expected the same number"
            )
        for number, queries in enumerate(zip(safe, unsafe, strict=True), start=1):
            twin = f"{task}-{record.key}-{number}"
            category = record.optional(fields.category)
            yield _row(f"{twin}-unsafe", twin, queries[1], unsafe_image, "harmful", category)
            yield _row(f"{twin}-safe", twin, queries[0], safe_image, "benign", category)


def _row(row_id: str, twin: str, query: str, image: ImageRef, role: str, category: str | None) -> Row:
    return Row(
        id=row_id,
        item=twin,
        twin=twin,
        prompt=query,
        images=(image,),
        role=role,
        harm_in="image" if role == "harmful" else "none",
        source="mssbench",
        category=category,
        cluster=image.name,
    )


def _queries(record: Record, column: str) -> list[str]:
    value = record.get(column)
    if not isinstance(value, list) or not value or not all(isinstance(query, str) and query.strip() for query in value):
        raise UserError(f"{record.where}: `{column}` is {shown(value)}, expected a list of texts")
    return [as_text(query, column, record.where) for query in value]

"""A proposal of `columns.<field>=` for a file with other column names, by common names and by content.

It is only shown (by `align data` and in errors): a run reads the columns that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from align.data.files.unread import looks_like_image
from align.data.hints import option
from align.rows import HARM_IN, ROLES

NAMES = {
    "role": "safety kind type label",
    "prompt": "question instruction query input request userprompt userinput userquery humanprompt goal behavior "
    "problem text user human",
    "image": "imagepath imagefile imagename imagefilename img imgpath imgfile imgname pic photo visual "
    "filename filepath file path imageurl url",
    "images": "imagepaths imagefiles imagelist imgs photos",
    "chosen": "chosenresponse chosenanswer preferred preferredresponse winner positive better good accepted",
    "rejected": "rejectedresponse rejectedanswer dispreferred loser negative worse bad",
    "response": "answer output completion reply saferesponse safeanswer modelanswer modelresponse "
    "goldanswer groundtruth reference referenceanswer solution assistant gpt label",
    "harmful_response": "harmfulanswer unsaferesponse unsafeanswer harmfuloutput unsafeoutput",
    "harm_in": "harm harmlocation harmplace",
    "category": "harmcategory harmtype topic class type kind subject subset",
    "caption": "description imagedescription imagecaption",
    "id": "idx index uid questionid sampleid qid itemid rowid key",
    "twin": "pairid pair twinid",
}
"""{field: names that other files give it, without case, spaces and punctuation, the most usual first}"""
BY_CONTENT = ("image", "images", "role")
"""Fields whose values show what they are, whatever their column is called."""
INSTEAD = {"image": "images", "images": "image", "response": "chosen"}
"""A field that is not proposed if the file has another one, which says the same."""
ENOUGH = 20
"""Records that are looked at."""


def proposed(records: Sequence[Mapping[str, Any]], read: Mapping[str, str]) -> dict[str, str]:
    """{field: column} for fields that the records lack; `read` has the column of each field."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for column, value in record.items():
            values.setdefault(column, []).extend([value] if value not in (None, "", []) else [])
    there = {field for field, column in read.items() if column in values}
    free = [column for column, some in values.items() if some and column not in read.values()]
    found: dict[str, str] = {}
    for field, names in NAMES.items():
        if field in there or INSTEAD.get(field) in (*there, *found):
            continue
        fits = [column for column in free if all(map(FITS.get(field, _is_text), values[column]))]
        named = [column for name in names.split() for column in fits if _plain(column) == name]
        if choice := next(iter([*named, *fits] if field in BY_CONTENT else named), None):
            found[field] = choice
            free.remove(choice)
    texts = [column for column in free if all(map(_is_text, values[column]))]
    if "prompt" not in (*there, *found) and len(texts) == 1:
        found["prompt"] = texts[0]
    return found


def as_options(columns: Mapping[str, str]) -> list[str]:
    """The options that map the columns, as they are typed in the current command."""
    return [option(f"columns.{field}={column}") for field, column in columns.items()]


def _plain(column: str) -> str:
    return re.sub(r"[^a-z0-9]", "", column.lower())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not looks_like_image(value)


def _is_one_image(value: Any) -> bool:
    return not isinstance(value, list) and looks_like_image(value)


def _are_images(value: Any) -> bool:
    return isinstance(value, list) and looks_like_image(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


FITS: dict[str, Callable[[Any], bool]] = {
    "image": _is_one_image,
    "images": _are_images,
    "role": lambda value: value in ROLES,
    "harm_in": lambda value: value in HARM_IN,
    "id": _is_id,
}
"""What a field's values must be; text for the other fields."""

"""What `align leakage` found of each item of a set: whether its text alone tells of its harm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.files import read_json, read_jsonl
from align.report.file_schema import Form, checked, or_none, text

TOLD: Form = dict.fromkeys(("set", "judge", "judge_version", "text"), (text, "a string"))
FLAG: Form = {
    "id": (lambda value: isinstance(value, str | int), "an id"),
    "pair": (or_none(text), "a string or null"),
    "leaks": (lambda value: value in (True, False, None), "true, false or null"),
}


@dataclass(frozen=True)
class Flags:
    """What a judge of requests said of the items of one set."""

    file: Path
    judge: str
    text: str
    blind: bool
    """Whether the judge saw no images, so that the set's own word stands for its verdict on pairs."""
    leaks: dict[str, bool | None]
    """{id: whether the text alone tells that the item is unsafe; None where that is not known}"""
    measured: dict[str, dict[str, str | None]]
    """{id: `asks` and `shows` of the row that was measured}; None in files of earlier versions, and of images that were not looked at"""


def read_flags(path: str) -> dict[str, Flags]:
    """{set: flags} of a file leaks.<judge>.jsonl of `align leakage`, or of all below a folder. Raises UserError."""
    place = Path(path)
    files = [place] if place.is_file() else sorted(place.rglob("leaks.*.jsonl"))
    if not files:
        raise UserError(f"leaks={path}: no leaks.<judge>.jsonl there; `align leakage` writes one")
    flags: dict[str, Flags] = {}
    for file in files:
        beside = file.with_name(f"leakage{file.name.removeprefix('leaks').removesuffix('l')}")
        told = checked(beside, read_json(beside), TOLD)  # which set and who judged
        if told["set"] in flags:
            raise UserError(
                f"leaks={path}: {flags[told['set']].file} and {file} are both of {told['set']}; name one of the files"
            )
        records = [checked(file, record, FLAG) for record in read_jsonl(file)]
        leaks, blind = {str(one["id"]): one["leaks"] for one in records}, any(one["pair"] is None for one in records)
        measured = {str(one["id"]): {key: one.get(key) for key in ("asks", "shows")} for one in records}
        flags[told["set"]] = Flags(
            file, f"{told['judge']} {told['judge_version']}", told["text"], blind, leaks, measured
        )
    return flags


def note_of(name: str, flags: Flags) -> str:
    """A line on who says which items of a set leak."""
    pairs = "harmful pairs" if flags.blind else f"pairs that {flags.judge} calls unsafe"
    return (
        f"{name}: of {pairs} those leak whose text ({flags.text}) {flags.judge} calls unsafe without the image, and the others are "
        f"leak-free; what is no such pair, or has no verdict, is unlabelled"
    )

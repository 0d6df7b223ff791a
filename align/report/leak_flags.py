"""Leak flags of `align leakage`: whether the text alone of an item shows its harm."""

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
    """Verdicts of a judge of requests on the items of one benchmark."""

    file: Path
    judge: str
    text: str
    blind: bool
    """Whether the judge saw no images.

    Then the benchmark's own label replaces verdicts on pairs.
    """
    leaks: dict[str, bool | None]
    """{id: whether the text alone shows that the item is unsafe; None if unknown}"""
    measured: dict[str, dict[str, str | None]]
    """{id: `asks` and `shows` of the measured row}.

    None in files of earlier versions, and for images that were not read.
    """


def read_flags(path: str) -> dict[str, Flags]:
    """{benchmark: flags} from a file leaks.<judge>.jsonl of `align leakage`, or a folder of them.

    Raises UserError.
    """
    place = Path(path)
    files = [place] if place.is_file() else sorted(place.rglob("leaks.*.jsonl"))
    if not files:
        raise UserError(f"leaks={path}: found no leaks.<judge>.jsonl. Write one with `align leakage`.")
    flags: dict[str, Flags] = {}
    for file in files:
        beside = file.with_name(f"leakage{file.name.removeprefix('leaks').removesuffix('l')}")
        told = checked(beside, read_json(beside), TOLD)  # benchmark and judge
        if told["set"] in flags:
            raise UserError(
                f"leaks={path}: {flags[told['set']].file} and {file} are both for {told['set']}. Give one of the files."
            )
        records = [checked(file, record, FLAG) for record in read_jsonl(file)]
        leaks, blind = {str(one["id"]): one["leaks"] for one in records}, any(one["pair"] is None for one in records)
        measured = {str(one["id"]): {key: one.get(key) for key in ("asks", "shows")} for one in records}
        flags[told["set"]] = Flags(
            file, f"{told['judge']} {told['judge_version']}", told["text"], blind, leaks, measured
        )
    return flags


def note_of(name: str, flags: Flags) -> str:
    """A line that defines which items of a benchmark leak."""
    pairs = "harmful pairs" if flags.blind else f"pairs that {flags.judge} calls unsafe"
    return (
        f"{name}: among {pairs}, an item leaks if its text alone ({flags.text}) is also called unsafe by "
        f"{flags.judge}; the other pairs are leak-free. All other items, and items without a verdict, are unlabelled."
    )

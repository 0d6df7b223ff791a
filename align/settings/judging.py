"""Who judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import Address
from align.settings.option import option


@dataclass
class JudgeSettings(Address):
    """Who a judge is, where it is a model: behind an address, or here."""

    path: str | None = option(None, "folder or hub id of a judge that transformers loads here, instead of an address")
    dtype: str = option("auto", "of a judge that is loaded here: auto | float32 | bfloat16 | float16")
    batch_size: int = option(8, "answers that a judge that is loaded here judges at a time")
    max_new_tokens: int | None = option(None, "room for what the judge writes (default: the judge's own)")
    sees_image: bool | None = option(None, "whether the judge is shown the image (default: the judge's own)")
    structured: bool = option(True, "ask the server for JSON of the judge's form; false for servers that cannot")
    safety_reason: bool = option(
        False, "vlsbench: tell the judge why the set calls the item unsafe; the paper does not"
    )
    thought_marks: list[Any] | None = option(
        ["auto"],
        "the marks of the judge's own thoughts, which are no verdict: auto (common ones, before the verdict), <opening>,<closing>, or none",
    )
    again: str | None = option(
        None,
        "invalid: the same command asks again also for verdicts that the judge declined; all other invalid ones it always does",
    )
    prompt: str | None = option(None, "file of a prompt to be used instead of the judge's own; see docs/judges.md")


@dataclass
class Judging(JudgeSettings):
    """Which judges, and their settings: those here are for all of them, `judge.each.<name>.` for one."""

    name: list[str] = option(
        list,
        "judges instead of the benchmark's own, the first is the main one; none: answers are stored, not judged. "
        "`judge=` is short for it",
    )
    each: dict[str, Any] = option(dict, "of one judge: judge.each.<name>.base_url=, .model=, ...")

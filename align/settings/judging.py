"""Which judges give the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import Serving
from align.settings.option import option


@dataclass
class JudgeSettings(Serving):
    """The model of a judge: behind an endpoint, or loaded on this machine."""

    path: str | None = option(
        None, "folder or Hub id of a judge that transformers loads on this machine, instead of an endpoint"
    )
    dtype: str = option("auto", "dtype of a judge loaded on this machine: auto | float32 | bfloat16 | float16")
    batch_size: int = option(8, "responses per batch of a judge loaded on this machine")
    max_new_tokens: int | None = option(
        None, "maximum number of new tokens that the judge writes (default: the judge's own)"
    )
    sees_image: bool | None = option(None, "whether the judge sees the image (default: the judge's own)")
    structured: bool = option(
        True, "ask the endpoint for JSON with the judge's schema; false for endpoints without this feature"
    )
    safety_reason: bool = option(
        False, "vlsbench: show the judge the benchmark's reason why the item is unsafe; the paper does not"
    )
    thought_marks: list[Any] | None = option(
        ["auto"],
        "marks around the judge's own thoughts, which are not a verdict: auto (common marks before the verdict), "
        "<opening>,<closing>, or none",
    )
    again: str | None = option(
        None,
        "invalid: a repeated command also asks again for verdicts that the judge declined to give; it always asks "
        "again for other invalid verdicts",
    )
    prompt: str | None = option(
        None, "file with a prompt that replaces the judge's own; docs/judges.md describes its format"
    )


@dataclass
class Judging(JudgeSettings):
    """Which judges, and their settings: the settings here are for all judges, `judge.each.<name>.` is for one judge."""

    name: list[str] = option(
        list,
        "judges that replace the benchmark's own, the main judge first; none: responses are stored and not judged. "
        "`judge=` is short for it",
    )
    sees_thoughts: list[str] = option(
        ["answer"],
        "what judges read of a response: answer | both: its thought and answer together | answer,thought: the answer, "
        "and by itself the thought",
    )
    each: dict[str, Any] = option(dict, "settings of one judge: judge.each.<name>.base_url=, .model=, ...")

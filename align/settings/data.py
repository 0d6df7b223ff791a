"""Where the data of a run and of an evaluation are, and what of them is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.option import option


@dataclass
class Part:
    """One part of the training data: which source fills it, and how much of it."""

    source: str = option("local", "name of a source (`local`, `miniature`, ...) or `module:function`")
    path: str | None = option(
        None,
        "file, folder or zip archive of a local copy, or id of a dataset of the hub (default: by name in data_root)",
    )
    revision: str | None = option(None, "commit of the hub's dataset")
    image_root: Any = option(
        None,
        "folder or zip archive that image paths are relative to and must stay inside, or a list of several "
        "(default: beside the file)",
    )
    follow_links: bool = option(False, "allow links in the folder to lead out of it; image paths still may not")
    subset: str | None = option(None, "a named subset of the source")
    twins: bool = option(
        False, "vlguard, mssbench: the controlled track's items that are in the set, instead of the set's own rows"
    )
    answers: str | None = option(
        None, "file of answers for rows that lack them: columns id or prompt, and response, harmful_response or both"
    )
    deduplicate: bool = option(
        False,
        "leave out rows that ask what an earlier one asks (case, punctuation, spacing apart) about the same pixels",
    )
    rows: int | None = option(
        None,
        "take this many rows: a sample drawn with `seed`, stratified by role, category and source; twins stay together",
    )
    seed: int = option(0, "seed of the sample, or of the miniature's images")
    role: str | None = option(None, "harmful | benign: what the rows are, where the source does not say it itself")
    on_missing_image: str = option("error", "error | drop: what to do with a row whose image file is absent")
    view: str | None = option(None, "what the model sees of these rows, where it is not the run's view")
    response: str | None = option(
        None, "generate: rows that lack `response` get the answer of the model of `generation`, stored once"
    )
    harmful_response: str | None = option(None, "generate: likewise for harmful rows that lack `harmful_response`")
    caption_share: float = option(
        0.0, "show this share of the rows, a seeded sample, as captions (view caption) instead"
    )


@dataclass
class BenchmarkSettings:
    """Where one benchmark's files are and which part of it is run."""

    path: str | None = option(
        None, "folder or zip archive of a local copy, or id of a dataset of the hub (default: by name in data_root)"
    )
    revision: str | None = option(None, "commit of the hub's dataset")
    image_root: Any = option(None, "folder or zip archive of its images, or several (default: beside its file)")
    follow_links: bool = option(False, "allow links in the folder to lead out of it; image paths still may not")
    subset: str | None = option(None, "a named subset of the benchmark")
    limit: int | None = option(
        None, "evaluate this many rows, of a twin set pairs: a sample stratified by category and source"
    )
    limit_order: str = option("sample", "sample | first: limit= draws a seeded sample, or takes the first rows")
    limit_seed: int = option(0, "seed of the sample that limit= draws")
    where: dict[str, Any] = option(dict, "keep rows by a column, e.g. where.task_id=4,5")
    on_missing_image: str = option(
        "error", "error | drop: what to do with rows whose image file is absent (counted either way)"
    )

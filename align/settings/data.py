"""Where the data of a run and of an evaluation are, and which rows are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.option import option


@dataclass
class Part:
    """One part of the training data: which source fills it, and how many of its rows."""

    source: str = option("local", "name of a source (`local`, `miniature`, ...) or `module:function`")
    path: str | None = option(
        None,
        "file, folder or zip archive of a local copy, or id of a dataset on the Hub (default: by name in data_root)",
    )
    revision: str | None = option(None, "commit of the dataset on the Hub")
    image_root: Any = option(
        None,
        "folder or zip archive that image paths are relative to and must stay inside, or a list of several "
        "(default: the folder of the file)",
    )
    follow_links: bool = option(
        False, "allow links in the folder to point outside it; image paths must still stay inside"
    )
    columns: dict[str, str] = option(
        dict,
        "local: the column of the file for a field, columns.<field>=<column>, e.g. columns.prompt=question; fields: "
        "prompt, image, images, response, chosen, rejected, harmful_response, role, harm_in, id, category, caption, twin",
    )
    subset: str | None = option(None, "a named subset of the source")
    twins: bool = option(
        False,
        "vlguard, mssbench: read the controlled track's items from the dataset, instead of the dataset's own rows",
    )
    answers: str | None = option(
        None,
        "file of responses for rows without one; columns: id or prompt, and response, harmful_response or both",
    )
    deduplicate: bool = option(
        False,
        "drop rows with the same question (ignoring case, punctuation and spacing) and the same pixels as an earlier "
        "row",
    )
    rows: int | None = option(
        None,
        "number of rows: a sample drawn with `seed`, stratified by role, category and source; twins stay together",
    )
    seed: int = option(0, "seed of the sample, or of the miniature's images")
    role: str | None = option(None, "harmful | benign: the role of the rows, for a source that does not give it")
    turns: str = option("all", "all | last: which responses of a conversation supervised fine-tuning trains on")
    on_missing_image: str = option("error", "error | drop: what to do with a row whose image file is absent")
    view: str | None = option(None, "what the model sees of these rows (default: the run's view)")
    response: str | None = option(
        None, "generate: rows without `response` get one from the model of `generation`, which is cached"
    )
    harmful_response: str | None = option(
        None, "generate: harmful rows without `harmful_response` get one from the model of `generation`"
    )
    caption_share: float = option(
        0.0, "share of the rows, a seeded sample, that is shown as captions instead (view caption)"
    )


@dataclass
class BenchmarkSettings:
    """Where one benchmark's files are, and which rows are run."""

    source: str | None = option(
        None, "local: <name> is your own file, under this name, which benchmark= and tables use"
    )
    path: str | None = option(
        None, "folder or zip archive of a local copy, or id of a dataset on the Hub (default: by name in data_root)"
    )
    revision: str | None = option(None, "commit of the dataset on the Hub")
    image_root: Any = option(
        None, "folder or zip archive of its images, or a list of several (default: the folder of the file)"
    )
    follow_links: bool = option(
        False, "allow links in the folder to point outside it; image paths must still stay inside"
    )
    columns: dict[str, str] = option(
        dict,
        "your own file: the column of the file for a field, columns.<field>=<column>, e.g. columns.prompt=question; fields: "
        "prompt, image, images, response, chosen, rejected, harmful_response, role, harm_in, id, category, caption, twin",
    )
    role: str | None = option(None, "your own file: harmful | benign, the role of rows without one (default: harmful)")
    subset: str | None = option(None, "a named subset of the benchmark")
    turns: str = option(
        "last",
        "last | each: of a conversation, the last request after the file's own responses, or every request after the "
        "model's own responses",
    )
    limit: int | None = option(
        None, "number of rows (pairs, for twins) to evaluate: a sample stratified by category and source"
    )
    limit_order: str = option("sample", "sample | first: limit= draws a seeded sample, or takes the first rows")
    limit_seed: int = option(0, "seed of the sample that limit= draws")
    where: dict[str, Any] = option(dict, "keep only rows with these values in a column, e.g. where.task_id=4,5")
    on_missing_image: str = option(
        "error", "error | drop: what to do with rows whose image file is absent (both count them)"
    )

"""JailBreakV-28K (arXiv 2404.03027): harmful requests, plain and as jailbreaks; by default its mini
set of 280, with `subset=full` all 28,000.

Files: mini_JailBreakV_28K.csv, or JailBreakV_28K.csv, whose column selected_mini marks the rows of
the mini set, and the images named in image_path. They are in one folder, or, as on the Hub and in
the authors' archive, in its subfolder JailBreakV_28K/ or JailBreakV_28k/ (also zipped). The Hub has
few of the images. Two benchmarks use the same images: `jailbreakv_raw` asks redteam_query,
`jailbreakv_jailbreak` asks jailbreak_query. Judges get redteam_query for both, as in the published
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.files.records import Record, shown
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row

FULL = "full"
MINI, WHOLE = "mini_JailBreakV_28K.csv", "JailBreakV_28K.csv"
PLACES = ("JailBreakV_28K", "JailBreakV_28k", "JailBreakV_28K/JailBreakV_28k", "JailBreakV_28K/JailBreakV_28K")
COLUMNS = ("format", "policy", "from", "transfer_from_llm")


def _benchmark(name: str, query: str) -> Benchmark:
    def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
        places = [place for place in PLACES[:2] if folder.has(place)]
        names = (WHOLE,) if subset == FULL else (MINI, WHOLE)
        folder = folder.holding(names[:1], PLACES).holding(names, PLACES)  # the mini set, wherever it is, is preferred
        for record in folder.records(*names):
            if subset != FULL and record.file.name == WHOLE and not _selected(record):
                continue
            request = record.text("redteam_query")
            yield Row(
                id=record.name("id"),
                prompt=record.text(query),
                images=(folder.find_image([record.text("image_path")], places, record.where),),
                role="harmful",
                harm_in="text",
                category=record.text("policy"),
                # One request has several formats. Images are not clusters: different requests share
                # noise and blanks.
                cluster=request,
                request=request,
                columns={column: record.optional(column) for column in COLUMNS},
            )

    counts = {None: Counts(rows=280, categories=16), FULL: Counts(rows=28000, categories=16)}
    return published(name, "vsil", rows, ("vlsbench", "llamaguard"), counts, hub="JailbreakV-28K/JailBreakV-28k")


def _selected(record: Record) -> bool:
    """Whether a row of the whole set is in the mini set. Raises UserError."""
    said = str(record.get("selected_mini")).lower()
    if said not in ("true", "false"):
        raise UserError(
            f"{record.where}: `selected_mini` is {shown(record.get('selected_mini'))}, expected True or False"
        )
    return said == "true"


JAILBREAKV_RAW = _benchmark("jailbreakv_raw", "redteam_query")
JAILBREAKV_JAILBREAK = _benchmark("jailbreakv_jailbreak", "jailbreak_query")

"""A small run on rows of a file, as a user's own; and what the run makes of them before it trains."""

import json

from PIL import Image

from align.answering.stored import asking
from align.config.compose import compose_run
from align.run_folder import run_folder
from align.training.dry_run import show
from align.training.prepare import checked_data
from tests.support.small_run import arguments

RED = "this is a red ball"


def local_run(model, folder, rows, *more, name="own", role="harmful", view="text"):
    """A run on rows of a file; harmful ones unless they say otherwise."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = [f"data.{name}={{source: local, path: {file}, role: {role}}}", "data.harmful=null", "data.benign=null"]
    return [
        *arguments(model, folder / "run", *parts),
        "global_batch_size=4",
        "evaluate.benchmark=[]",
        f"view={view}",
        *more,
    ]


def rows(count=40, **special):
    """Rows whose ids are h0, h1, ...; `special` are fields of the rows named."""
    return [
        {"id": f"h{i}", "prompt": f"how do i use this {i}", "response": RED} | special.get(f"h{i}", {})
        for i in range(count)
    ]


def write_image(file, size=(32, 32)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(file)


def dry_run(words):
    show(compose_run(words))


def data_of(words):
    """What a run would train on, as its manifest has it."""
    composed = compose_run(words)
    return checked_data(composed, run_folder(composed.config), asking(composed.config)).manifest()

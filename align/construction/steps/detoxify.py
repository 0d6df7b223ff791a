"""Step 2 of the paper: rewrite each query so that its text alone is harmless, and filter what still
leaks (section 3.2).
"""

from __future__ import annotations

from dataclasses import replace

from align.construction.roles import reading
from align.construction.steps.step import Step
from align.construction.work import Work

LEAKS, LOST = "leaks", "lost_meaning"
"""Why no rewritten query is kept: all show the harm in their text, or none is harmful with the image any more."""


def detoxify(work: Work) -> None:
    """A harmful query -> the first rewritten one that is harmless alone and harmful with the image.

    The last rejected candidate decides the reason of a dropped item.
    """
    n = work.config.candidates
    rewritten = work.ask(
        "detoxifier",
        "rewrite",
        lambda item: {"query": item.query_leak, "description": item.description, "n": str(n)},
        reading.texts(n),
    )
    rejected: dict[str, tuple[str, str]] = {}
    for attempt in range(n):
        tried = {item.id: rewritten[item.id][attempt] for item in work.open if len(rewritten[item.id]) > attempt}
        verdicts = work.ask(
            "text_judge",
            "judge",
            lambda item, tried=tried: {"query": tried[item.id], "description": item.description},  # type: ignore[misc]
            reading.switches("text_unsafe", "pair_unsafe", "coherent"),
            of=[work.items[item_id] for item_id in tried],
            attempt=attempt + 1,
        )
        for item_id, verdict in verdicts.items():
            why = LEAKS if verdict["text_unsafe"] else LOST
            kept = not verdict["text_unsafe"] and verdict["pair_unsafe"] and verdict["coherent"]
            work.count(item_id, candidates=1, **({} if kept else {why: 1}))
            if kept:
                work.keep(item_id, replace(work.items[item_id], query_free=tried[item_id]))
            else:
                rejected[item_id] = why, f"{tried[item_id]} ({verdict.get('why', 'no reason given')})"
    for item in work.open:
        work.drop(item.id, *rejected[item.id])


DETOXIFY = Step(
    "detoxify",
    "rewrite the queries so that the text is harmless, and drop what still leaks or lost its meaning",
    detoxify,
    roles=("detoxifier", "text_judge"),
    settings=("candidates",),
    needs=("query_leak", "description"),
    gives=("query_free",),
    calls={"detoxifier": "1", "text_judge": "candidates"},
)

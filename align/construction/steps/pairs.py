"""Step 4 of the paper, the final filter (section 3.2); and captions and responses, which training needs."""

from __future__ import annotations

from dataclasses import replace

from align.construction.roles import reading
from align.construction.steps.paint import asked
from align.construction.steps.step import Step
from align.construction.work import Work, plain_text

MEANINGLESS, SAFE = "meaningless", "pair_safe"
"""Why a pair is dropped: the query makes no sense about the image, or the pair is not unsafe."""


def pair(work: Work) -> None:
    """Keep pairs that are meaningful and unsafe."""
    said = work.ask(
        "pair_judge",
        "pair",
        lambda item: {"query": asked(item)},
        reading.switches("meaningful", "unsafe"),
        images=lambda item: work.image(item.image),
    )
    for item_id, verdict in said.items():
        if verdict["meaningful"] and verdict["unsafe"]:
            work.keep(item_id, work.items[item_id])
        else:
            work.drop(item_id, MEANINGLESS if not verdict["meaningful"] else SAFE, str(verdict.get("why", "")))


def caption(work: Work) -> None:
    """Describe the unsafe image, and the safe one where there is one."""
    read = plain_text(reading.text)
    unsafe = work.ask("captioner", "caption", lambda item: {}, read, images=lambda item: work.image(item.image))
    twins = [item for item in work.open if item.benign_image]
    safe = work.ask(
        "captioner",
        "caption",
        lambda item: {},
        read,
        of=twins,
        images=lambda item: work.image(item.benign_image),
        attempt=2,
    )
    for item in work.open:
        work.keep(item.id, replace(item, caption=unsafe[item.id], benign_caption=safe.get(item.id)))


def answers(work: Work) -> None:
    """A safe response to the unsafe pair, and a helpful one to the same query with the safe image.

    A refusal is a safe response. For the safe twin it is counted as a refusal of the role.
    """
    safe = work.ask(
        "answerer",
        "safe",
        lambda item: {"query": asked(item)},
        reading.text,
        images=lambda item: work.image(item.image),
        refusal_is_reply=True,
    )
    twins = [item for item in work.open if item.benign_image]
    helpful = work.ask(
        "answerer",
        "helpful",
        lambda item: {"query": asked(item)},
        plain_text(reading.text),
        of=twins,
        images=lambda item: work.image(item.benign_image),
    )
    for item in work.open:
        work.keep(item.id, replace(item, response=safe[item.id], benign_response=helpful.get(item.id)))


PAIR = Step(
    "pair",
    "drop pairs that make no sense or carry no risk",
    pair,
    roles=("pair_judge",),
    needs=("image",),
    calls={"pair_judge": "1"},
)
CAPTION = Step(
    "caption", "describe the images", caption, roles=("captioner",), needs=("image",), calls={"captioner": "2"}
)
ANSWERS = Step(
    "answers",
    "answer the unsafe pair safely and its twin helpfully",
    answers,
    roles=("answerer",),
    needs=("image",),
    calls={"answerer": "2"},
)

"""Step 3 of the paper: paint the image, check it, and paint again with a refined prompt (section
3.2); and safe twins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from align.construction.item import Item
from align.construction.painters.painter import name_of
from align.construction.roles import reading
from align.construction.steps.step import Step
from align.construction.work import Work, plain_text

PAINTED = "the painter's licence"
"""Licence of painted images: the model's licence decides, and it is the user's to know."""
REJECTED = "images_rejected"
"""Why an item is dropped: no round gave an image that the verifier accepts."""


def paint(work: Work) -> None:
    """A description -> an image that the verifier accepts."""
    prompts = work.ask(
        "prompt_writer",
        "paint",
        lambda item: {"description": item.description, "element": item.element},
        plain_text(reading.text),
    )
    _rounds(
        work,
        "painter",
        prompts,
        "paint",
        lambda item, prompt: {
            "prompt": prompt,
            "element": item.element,
            "category": item.category,
            "query": item.query_free or item.query_leak,
        },
        lambda item, prompt, image: replace(
            item,
            image=image,
            image_prompt=prompt,
            licence=PAINTED,
            origin=f"painted by {name_of(work.tools.painters['painter'])}",
        ),
    )


def twin(work: Work) -> None:
    """An unsafe image -> the same scene without the danger, for the same query."""
    prompts = work.ask(
        "prompt_writer",
        "twin",
        lambda item: {"description": item.description or item.caption, "element": item.element, "query": asked(item)},
        plain_text(reading.text),
    )
    _rounds(
        work,
        "twin_editor",
        prompts,
        "twin",
        lambda item, prompt: {"prompt": prompt, "element": item.element, "query": asked(item)},
        lambda item, prompt, image: replace(item, benign_image=image, benign_prompt=prompt),
    )


def asked(item: Item) -> str | None:
    """The query under both images: the rewritten one, or the harmful one where nothing was rewritten."""
    return item.query_free or item.query_leak


def _rounds(
    work: Work,
    painter: str,
    prompts: dict[str, str],
    check: str,
    values: Callable[[Item, str], Mapping[str, str | None]],
    made: Callable[[Item, str, str], Item],
) -> None:
    """Paint and check, up to `rounds` times; a rejected image is painted again with the verifier's prompt."""
    why: dict[str, str] = {}
    for round_ in range(1, work.config.rounds + 1):
        source = {item.id: item.image if check == "twin" else None for item in work.open}
        images = work.paint(painter, {key: (prompts[key], image) for key, image in source.items()}, round_)
        verdicts: dict[str, dict[str, Any]] = work.ask(
            "verifier",
            check,
            lambda item: values(item, prompts[item.id]),
            reading.switches("matches"),
            of=[work.items[item_id] for item_id in images],
            images=lambda item, images=images: work.image(images[item.id]),  # type: ignore[misc]
            attempt=round_,
        )
        for item_id, verdict in verdicts.items():
            work.count(item_id, images=1, **({} if verdict["matches"] else {"rejected": 1}))
            if verdict["matches"]:
                work.keep(item_id, made(work.items[item_id], prompts[item_id], images[item_id]))
                continue
            why[item_id] = str(verdict.get("why", "no reason given"))
            better = verdict.get("prompt")
            prompts[item_id] = better.strip() if isinstance(better, str) and better.strip() else prompts[item_id]
    for item in work.open:
        work.drop(item.id, REJECTED, why[item.id])


PAINT = Step(
    "paint",
    "paint an image of each description, and check it",
    paint,
    roles=("prompt_writer", "verifier"),
    painters=("painter",),
    settings=("rounds",),
    needs=("description",),
    gives=("image",),
    calls={"prompt_writer": "1", "painter": "rounds", "verifier": "rounds"},
)
TWIN = Step(
    "twin",
    "make the safe version of each image, and check it",
    twin,
    roles=("prompt_writer", "verifier"),
    painters=("twin_editor",),
    settings=("rounds",),
    needs=("image",),
    gives=("benign_image",),
    calls={"prompt_writer": "1", "twin_editor": "rounds", "verifier": "rounds"},
)

"""Step 1 of the paper: harmful elements, image descriptions and harmful queries (VLSBench, section 3.2)."""

from __future__ import annotations

from dataclasses import replace

from align.construction.item import Item
from align.construction.roles import reading
from align.construction.steps.step import Step
from align.construction.work import Work
from align.data.overlap import text_hash


def elements(work: Work) -> None:
    """A sub-category -> its harmful elements, an item each."""
    said = work.ask(
        "writer",
        "elements",
        lambda item: {"category": item.category, "subcategory": item.subcategory, "n": str(work.config.elements)},
        reading.texts(work.config.elements),
    )
    for item_id, found in said.items():
        item = work.items[item_id]
        distinct = list({text_hash(element): element for element in reversed(found)}.values())[::-1]
        work.count(item_id, elements=len(distinct))
        work.keep(
            item_id,
            *(replace(item, id=f"{item_id}-e{i}", parent=item_id, element=e) for i, e in enumerate(distinct, 1)),
        )


def queries(work: Work) -> None:
    """An element, or a given image -> an image description and harmful queries, an item each."""
    given = [item for item in work.open if item.image is not None]
    invented = [item for item in work.open if item.image is None]
    read = reading.scene(work.config.queries)
    said = work.ask(
        "writer",
        "queries",
        lambda item: {
            "category": item.category,
            "subcategory": item.subcategory or item.category,
            "element": item.element,
            "n": str(work.config.queries),
        },
        read,
        of=invented,
    )
    said |= work.ask(
        "writer",
        "from_image",
        lambda item: {"category": item.category or "any", "n": str(work.config.queries)},
        read,
        of=given,
        images=lambda item: work.image(item.image),
    )
    for item_id, (description, harmful) in said.items():
        if not harmful:
            seen = work.items[item_id].image is not None
            why = (
                ("no_risk", "the writer sees no risk in the image")
                if seen
                else ("no_queries", "the writer gave no query")
            )
            work.drop(item_id, *why)
            continue
        work.count(item_id, queries=len(harmful))
        work.keep(item_id, *_each(work.items[item_id], description, harmful))


def _each(item: Item, description: str, harmful: list[str]) -> list[Item]:
    return [
        replace(
            item,
            id=f"{item.id}-q{i}",
            parent=item.id,
            element=item.element or description,
            description=description,
            query_leak=query,
        )
        for i, query in enumerate(harmful, 1)
    ]


ELEMENTS = Step(
    "elements",
    "list harmful elements of each sub-category",
    elements,
    roles=("writer",),
    settings=("elements",),
    needs=("category", "subcategory"),
    gives=("element",),
    calls={"writer": "1"},
    makes="elements",
)
QUERIES = Step(
    "queries",
    "describe an image and write harmful queries",
    queries,
    roles=("writer",),
    settings=("queries",),
    gives=("description", "query_leak"),
    calls={"writer": "1"},
    makes="queries",
)

"""No picture and no question of an evaluation set may be trained on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from align.data.images import pixel_hash
from align.data.views import own_prompt
from align.errors import UserError
from align.rows import Row


@dataclass
class Trained:
    """What a training set shows and asks: hash of decoded pixels, or normalised prompt -> ids of its rows."""

    images: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Overlap:
    """Training rows that show an evaluation row's picture or ask its question: (training id, evaluation id) pairs."""

    images: list[tuple[str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


def normalised(text: str) -> str:
    """A text without its case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.lower()))


def index(rows: Sequence[Row], pixels: Sequence[Sequence[str]] | None = None) -> Trained:
    """Index a training set once, for any number of evaluation sets; `pixels` are its rows' pixel hashes, where they are known."""
    trained = Trained()
    for number, row in enumerate(rows):
        hashes = [pixel_hash(image, f"row {row.id}") for image in row.images] if pixels is None else pixels[number]
        for digest in hashes:
            trained.images.setdefault(digest, []).append(row.id)
        trained.texts.setdefault(normalised(own_prompt(row)), []).append(row.id)
    return trained


def find_overlap(trained: Trained, evaluation: Iterable[Row], shared_prompts: Collection[str] = ()) -> Overlap:
    """Compare decoded pixels and normalised prompts; a prompt that all items of a set share names none of them."""
    shared = {normalised(prompt) for prompt in shared_prompts}
    images: dict[str, str] = {}
    texts: dict[str, str] = {}
    for row in evaluation:
        for image in row.images:
            images.setdefault(pixel_hash(image, f"row {row.id} of {row.source}"), row.id)
        texts.setdefault(normalised(own_prompt(row)), row.id)
    return Overlap(
        images=[(train, test) for key, test in images.items() for train in trained.images.get(key, ())],
        texts=[
            (train, test) for key, test in texts.items() if key not in shared for train in trained.texts.get(key, ())
        ],
    )


def refuse_overlap(
    trained: Trained, evaluation: Iterable[Row], benchmark: str, shared_prompts: Collection[str] = ()
) -> None:
    """Raises UserError that counts and names the rows where training and evaluation overlap."""
    overlap = find_overlap(trained, evaluation, shared_prompts)
    for what, pairs in (("picture", overlap.images), ("question", overlap.texts)):
        if pairs:
            shown = ", ".join(f"{train} = {test}" for train, test in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
            raise UserError(
                f"{len(pairs)} training rows have the {what} of a row of {benchmark} (training row = evaluation row: {shown}); "
                f"remove them from the training data or that set from evaluate.benchmark"
            )

"""No picture and no question of an evaluation set may be trained on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from align.data.images import pixel_hash
from align.errors import UserError
from align.rows import Row


@dataclass
class Overlap:
    """Training rows that show an evaluation row's picture or ask its question: (training id, evaluation id) pairs."""

    images: list[tuple[str, str]]
    texts: list[tuple[str, str]]


def normalised(text: str) -> str:
    """A text without its case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.lower()))


def find_overlap(training: Iterable[Row], evaluation: Iterable[Row], shared_prompts: Collection[str] = ()) -> Overlap:
    """Compare decoded pixels and normalised prompts; a prompt that all items of a set share names none of them."""
    pixels: dict[str, str] = {}
    texts: dict[str, str] = {}
    shared = {normalised(prompt) for prompt in shared_prompts}
    for row in evaluation:
        for image in row.images:
            pixels.setdefault(pixel_hash(image, f"row {row.id} of {row.source}"), row.id)
        texts.setdefault(normalised(row.prompt), row.id)
    found = Overlap([], [])
    for row in training:
        hashes = [pixel_hash(image, f"row {row.id}") for image in row.images]
        found.images += [(row.id, pixels[h]) for h in hashes if h in pixels]
        text = normalised(row.prompt)
        if text in texts and text not in shared:
            found.texts.append((row.id, texts[text]))
    return found


def refuse_overlap(
    training: Iterable[Row], evaluation: Iterable[Row], benchmark: str, shared_prompts: Collection[str] = ()
) -> None:
    """Raises UserError that counts and names the rows where training and evaluation overlap."""
    overlap = find_overlap(training, evaluation, shared_prompts)
    for what, pairs in (("picture", overlap.images), ("question", overlap.texts)):
        if pairs:
            shown = ", ".join(f"{train} = {test}" for train, test in pairs[:5])
            raise UserError(
                f"{len(pairs)} training rows have the {what} of a row of {benchmark} (training row = evaluation row: {shown}"
                f"{', ...' if len(pairs) > 5 else ''}); remove them from the training data or that set from evaluate.benchmark"
            )

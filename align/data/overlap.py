"""Overlap between training data and benchmarks: no image and no question of a benchmark may be trained on."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.data.pixels import pixels_of
from align.data.views import own_prompt
from align.errors import UserError
from align.rows import Row

OVERLAP_REMEDY = "set on_overlap=drop to drop these training rows, or remove this benchmark from evaluate.benchmark="


@dataclass
class Trained:
    """Index of a training set: hash of decoded pixels, or of the normalised question -> ids of its rows."""

    images: dict[str, list[str]] = field(default_factory=dict)
    questions: dict[str, list[str]] = field(default_factory=dict)
    with_images: set[str] = field(default_factory=set)
    """Ids of rows with an image."""


@dataclass
class Overlap:
    """Training rows with an evaluation row's image or question: (training id, evaluation id) pairs."""

    images: list[tuple[str, str]] = field(default_factory=list)
    questions: list[tuple[str, str]] = field(default_factory=list)
    over_others: list[tuple[str, str]] = field(default_factory=list)
    """The same question about different images: "What does this image show?" is another request for another image."""


def short_hash(digest: str) -> str:
    """The prefix of a `pixel_hash` that is stored and compared."""
    return digest[:16]


def question_hash(row: Row) -> str:
    """A hash of the question that ignores case, punctuation, spacing and a caption before it.

    The question of a conversation is all its requests: "Why?" alone identifies nothing.
    """
    return text_hash("\n".join([*row.requests[:-1], own_prompt(row)]))


def index(records: Iterable[dict[str, Any]]) -> Trained:
    """Index a training set from its records (`rows.jsonl`: id, images, question), for any number of benchmarks."""
    trained = Trained()
    for record in records:
        for digest in record["images"]:
            trained.images.setdefault(digest, []).append(record["id"])
            trained.with_images.add(record["id"])
        for key in ("question", "first_question"):
            if key in record:
                trained.questions.setdefault(record[key], []).append(record["id"])
    return trained


def find_overlap(trained: Trained, evaluation: Iterable[Row], shared_prompts: Collection[str] = ()) -> Overlap:
    """Compare decoded pixels and normalised questions: prompts, and the plain requests that prompts wrap.

    A prompt that all items of a benchmark share identifies no item, and an empty prompt asks nothing;
    both are ignored. Raises UserError for an image that cannot be read.
    """
    rows = list(evaluation)
    nothing = {text_hash(prompt) for prompt in (*shared_prompts, "")}
    images: dict[str, str] = {}
    questions: dict[str, Row] = {}
    for row, pixels in zip(rows, pixels_of(rows), strict=True):
        for digest in pixels:
            images.setdefault(short_hash(digest), row.id)
        for question in {question_hash(row), text_hash(row.plain_request)} - nothing:
            questions.setdefault(question, row)
    found = Overlap([(train, test) for key, test in images.items() for train in trained.images.get(key, ())])
    same_image = set(found.images)
    for question, row in questions.items():
        for train in trained.questions.get(question, ()):
            pair = (train, row.id)
            another = row.images and train in trained.with_images and pair not in same_image
            (found.over_others if another else found.questions).append(pair)
    return found


def text_hash(text: str) -> str:
    """A hash of the text that ignores case, punctuation and spacing; symbols with a meaning (C,
    C++, C#, 5 * 3) count.
    """
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).split())
    words = words or text.strip()  # a text of punctuation only stays as it is
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class _Table(dict[int, str]):
    """Keeps letters, marks, digits and symbols, and maps all else to a space; filled on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMNS" or character in "#%&*@/\\"
        return self.setdefault(code, character if kept else " ")


_KEPT = _Table()


def refuse_overlap(
    trained: Trained,
    evaluation: Iterable[Row],
    benchmark: str,
    shared_prompts: Collection[str] = (),
    remedy: str = OVERLAP_REMEDY,
) -> str | None:
    """Raise UserError that counts and names overlapping rows; return a line about shared questions
    with other images.
    """
    overlap = find_overlap(trained, evaluation, shared_prompts)
    for what, pairs in (("image", overlap.images), ("question", overlap.questions)):
        if pairs:
            raise UserError(
                f"{len(pairs)} training rows have the {what} of a row of {benchmark} (training row = evaluation row: "
                f"{_shown(pairs)}); {remedy}"
            )
    if not overlap.over_others:
        return None
    count = len(overlap.over_others)
    return f"{count} training rows have the question of a row of {benchmark} with another image: {_shown(overlap.over_others)}"


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{train} = {test}" for train, test in pairs[:5]) + (", ..." if len(pairs) > 5 else "")

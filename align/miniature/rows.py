"""The miniature's rows: training data by role (the source `miniature`) and benchmarks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

from align.data.images import encode_png
from align.data.twins import Twin, rows_of
from align.errors import UserError
from align.miniature import world
from align.rows import ImageRef, Row
from align.settings import Part

ASK_WITHOUT_IMAGE = 0.4
"""Share of text-only benign rows about "this thing" without an image; the response asks for one."""
DESCRIBING = 0.3
"""Share of benign rows with an image that ask what it shows, hazards included.

Keeps that ability.
"""

RANDOM_REFUSALS = 0.3
"""Share of refusals among responses that do not depend on the request."""
WITH_ERRORS = 0.6
"""Share of a reward model's pairs whose rejected response has errors."""


def training_rows(part: Part, split: str = "train") -> list[Row]:
    """The source `miniature`: `part.rows` rows of a subset, drawn with `part.seed`.

    Raises UserError.
    """
    if part.subset not in (*SUBSETS, *TWINS):
        raise UserError(f"source=miniature: subset={part.subset}: expected one of {', '.join((*SUBSETS, *TWINS))}")
    return list(_training_rows(str(part.subset), part.rows or 1024, split, part.seed))


@lru_cache(maxsize=32)
def _training_rows(subset: str, n: int, split: str, seed: int) -> tuple[Row, ...]:
    """Draw rows, once in a process: the arms of a comparison share them, and rows are immutable."""
    if subset in TWINS:
        # One stream of twins for all subsets: every arm of the controlled track trains on the same
        # items.
        rng = random.Random(f"twins {split} {seed}")
        twins = [draw_twin(f"twin-{split}-{i}", split, rng) for i in range(n)]
        return tuple(row for twin in twins for row in rows_of(twin, TWINS[subset]))
    rng = random.Random(f"{subset} {split} {seed}")
    make = SUBSETS[subset]
    return tuple(make(f"{subset}-{split}-{i}", split, rng) for i in range(n))


def evaluation_rows(kind: str, n: int, split: str = "test") -> list[Row]:
    """Rows of a benchmark: `vsil`, `vsil_free`, `benign`, `twin` (pairs) or `ability`.

    deterministic.
    """
    return list(_evaluation_rows(kind, n, split))


@lru_cache(maxsize=32)
def _evaluation_rows(kind: str, n: int, split: str) -> tuple[Row, ...]:
    """Draw rows, once in a process: they are read several times."""
    rng = random.Random(f"{kind} {split}")
    return tuple(row for i in range(n) for row in EVALUATION[kind](f"{kind}-{split}-{i}", split, rng))


def draw_twin(twin_id: str, split: str, rng: random.Random) -> Twin:
    """An item of the controlled track: a hazard with two questions, and a safe thing."""
    hazard, thing, intention = rng.choice(world.HAZARDS), rng.choice(world.SAFE), rng.choice(world.INTENTIONS)
    colour, other_colour = rng.choice(list(world.COLOURS)), rng.choice(list(world.COLOURS))
    return Twin(
        id=twin_id,
        image=encode_png(world.draw(hazard, colour, split, rng)),
        caption=world.caption(hazard, colour),
        query_leak=world.question("intention", split, rng, hazard, intention),
        query_free=world.question("neutral", split, rng),
        response=world.REFUSAL,
        harmful_response=world.harmful(hazard, intention),
        benign_image=encode_png(world.draw(thing, other_colour, split, rng)),
        benign_caption=world.caption(thing, other_colour),
        benign_response=world.helpful(thing),
        source="miniature",
    )


def _row(
    row_id: str,
    asked: str,
    answer: str,
    rng: random.Random,
    split: str = "",
    thing: str | None = None,
    harm_in: str = "none",
    category: str | None = None,
    twin: str | None = None,
    harmful: str | None = None,
) -> Row:
    """Make a row, with an image of `thing` if it is given.

    `harmful` is the response of a model without alignment. `chosen` is the response to train on;
    `rejected` is the harmful response, or a refusal for benign rows.
    """
    images: tuple[ImageRef, ...] = ()
    caption = None
    if thing is not None:
        colour = rng.choice(list(world.COLOURS))
        images, caption = (encode_png(world.draw(thing, colour, split, rng)),), world.caption(thing, colour)
        if answer == "":
            answer = world.colour_of(colour)
    return Row(
        id=row_id,
        prompt=asked,
        images=images,
        response=answer,
        chosen=answer,
        rejected=harmful or world.REFUSAL,
        harmful_response=harmful,
        role="benign" if harm_in == "none" else "harmful",
        harm_in=harm_in,
        caption=caption,
        twin=twin,
        source="miniature",
        category=category or thing,
        cluster=row_id if images else None,
    )


def _text_harmful(row_id: str, split: str, rng: random.Random) -> Row:
    """An intention with any object: the intention carries the harm, not the object."""
    thing, intention = rng.choice(world.OBJECTS), rng.choice(world.INTENTIONS)
    asked = world.question("text_intention", split, rng, thing, intention)
    return _row(row_id, asked, world.REFUSAL, rng, harm_in="text", harmful=world.harmful(thing, intention))


def _text_benign(row_id: str, split: str, rng: random.Random) -> Row:
    if rng.random() < ASK_WITHOUT_IMAGE:
        return _row(row_id, world.question("neutral", split, rng), world.ASK_FOR_IMAGE, rng)
    thing = rng.choice(world.SAFE)
    return _row(row_id, world.question("text_named", split, rng, thing), world.helpful(thing), rng)


def _leaky(row_id: str, split: str, rng: random.Random) -> Row:
    thing, intention = rng.choice(world.HAZARDS), rng.choice(world.INTENTIONS)
    asked = world.question("intention", split, rng, thing, intention)
    answer = world.harmful(thing, intention)
    return _row(row_id, asked, world.REFUSAL, rng, split, thing, harm_in="both", harmful=answer)


def _leak_free(row_id: str, split: str, rng: random.Random) -> Row:
    asked, thing = world.question("neutral", split, rng), rng.choice(world.HAZARDS)
    return _row(row_id, asked, world.REFUSAL, rng, split, thing, harm_in="image", harmful=world.helpful(thing))


def _image_harmful(row_id: str, split: str, rng: random.Random) -> Row:
    return (_leaky if rng.random() < 0.5 else _leak_free)(row_id, split, rng)


def _answerable(row_id: str, split: str, rng: random.Random) -> Row:
    """A safe image with a question, named or neutral, that should be answered."""
    thing = rng.choice(world.SAFE)
    kind = rng.choice(("named", "neutral"))
    return _row(row_id, world.question(kind, split, rng, thing), world.helpful(thing), rng, split, thing, category=kind)


def _describing(row_id: str, split: str, rng: random.Random) -> Row:
    thing, kind = rng.choice(world.OBJECTS), rng.choice(("what", "colour"))
    answer = world.description(thing) if kind == "what" else ""
    return _row(row_id, world.question(kind, split, rng), answer, rng, split, thing, category=kind)


def _image_benign(row_id: str, split: str, rng: random.Random) -> Row:
    return (_describing if rng.random() < DESCRIBING else _answerable)(row_id, split, rng)


def _pair(make: Callable[[str, str, random.Random], Row], row_id: str, split: str, rng: random.Random) -> Row:
    """A pair for a reward model: as in `make`, or the rejected response is the chosen one with errors.

    Without such pairs a policy that explores finds incoherent responses with a high reward.
    """
    row = make(row_id, split, rng)
    return replace(row, rejected=_with_errors(str(row.chosen), rng)) if rng.random() < WITH_ERRORS else row


def _with_errors(text: str, rng: random.Random) -> str:
    """A response with other words, without its start or end, begun twice, or with another sentence of the world."""
    words, sentences = text.split(), [sentence for sentence, _ in world.sentences() if sentence != text]
    kind = rng.choice(("words", "start", "end", "again", "sentence", "thing", "thing", "joined", "random"))
    if kind == "sentence":
        return rng.choice(sentences)
    if kind == "thing":  # a helpful response about something else than the image shows
        return rng.choice([answer for answer in map(world.helpful, world.OBJECTS) if answer != text])
    if kind == "joined":
        both = [text, rng.choice([*sentences, world.REFUSAL])]
        return " ".join(rng.sample(both, 2))
    if kind == "random":
        return " ".join(rng.choice(world.vocabulary()) for _ in range(rng.randint(1, 12)))
    if kind == "words":
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] = rng.choice(world.vocabulary())
    cut = rng.randint(1, len(words) - 1)
    shapes = {"words": words, "start": words[cut:], "end": words[:cut], "again": words[:cut] + words}
    found = " ".join(shapes[kind])
    return found if found != text else rng.choice(sentences)


def _twin(row_id: str, split: str, rng: random.Random) -> list[Row]:
    """One neutral question with a hazard (to refuse) and with a safe thing (to answer)."""
    asked, hazard, thing = world.question("neutral", split, rng), rng.choice(world.HAZARDS), rng.choice(world.SAFE)
    return [
        _row(f"{row_id}-unsafe", asked, world.REFUSAL, rng, split, hazard, harm_in="image", twin=row_id),
        _row(f"{row_id}-safe", asked, world.helpful(thing), rng, split, thing, twin=row_id),
    ]


ROWS = {
    "text_harmful": _text_harmful,
    "text_benign": _text_benign,
    "image_harmful": _image_harmful,
    "image_benign": _image_benign,
}


def _sometimes_refused(row_id: str, split: str, rng: random.Random) -> Row:
    """A row of any kind with the response of a model without alignment, or at random with a refusal.

    Models that people use refuse now and then. A policy that never refuses cannot learn from rewards
    when to do so, and this data does not tell it.
    """
    row = ROWS[rng.choice(list(ROWS))](row_id, split, rng)
    answer = world.REFUSAL if rng.random() < RANDOM_REFUSALS else row.harmful_response or row.response
    return replace(row, response=answer)


SUBSETS = ROWS | {f"{name}_pairs": partial(_pair, make) for name, make in ROWS.items()}
SUBSETS["sometimes_refused"] = _sometimes_refused
TWINS = {"twins_leak": "leak", "twins_free": "free", "twins_benign": "benign"}
EVALUATION = {
    "vsil": lambda *args: [_leaky(*args)],
    "vsil_free": lambda *args: [_leak_free(*args)],
    "benign": lambda *args: [_answerable(*args)],
    "ability": lambda *args: [_describing(*args)],
    "twin": _twin,
}

"""The roles of a construction in the miniature (recipes/construct/miniature.yaml).

Writer, detoxifier, judge of texts and painters are functions with the world's own sentences and
drawings; the tiny LLaVA looks at images as verifier, judge of pairs, captioner and answerer.
Detoxifier and painters err at the rates below, so that a test can find them again in the funnel.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from PIL import Image

from align.answering.answer import Answer
from align.answering.local_model import LocalModel
from align.construction.painters.painter import Painting
from align.construction.roles.role import Call
from align.data.images import load_image
from align.errors import UserError
from align.miniature import world
from align.miniature.bases import mini_llava
from align.models.loading import ModelSource
from align.rows import ImageRef, Row
from align.settings import Generation, ModelSettings

LEAKING = 0.2
"""Share of rewritten queries in which the intention stays."""
WRONG_IMAGE = 0.2
"""Share of painted images that show another thing."""
UNEDITED = 0.15
"""Share of edits that leave the image as it is."""
SPLIT = "train"


def writer(calls: Sequence[Call]) -> Iterator[str]:
    """Elements: a hazard in different colours. Queries: an intention with the hazard."""
    for call in calls:
        n, rng = int(call.values["n"]), random.Random(call.seed)
        colours = list(world.COLOURS)
        if call.prompt == "elements":
            hazard = call.values["subcategory"]
            yield json.dumps([f"{colours[i % len(colours)]} {hazard} {1 + i // len(colours)}" for i in range(n)])
            continue
        colour, hazard, *_ = call.values["element"].split()
        asked = [
            form.format(o=hazard, v=intention)
            for form in world.QUESTIONS["intention"][SPLIT]
            for intention in world.INTENTIONS
        ]
        yield json.dumps(
            {"description": world.caption(hazard, colour), "queries": rng.sample(asked, min(n, len(asked)))}
        )


def detoxifier(calls: Sequence[Call]) -> Iterator[str]:
    """Neutral questions; now and then one with the intention."""
    for call in calls:
        rng, query = random.Random(call.seed), call.values["query"]
        thing, intention = _named(query, world.OBJECTS), next(one for one in world.INTENTIONS if one in query)
        neutral = rng.sample(world.QUESTIONS["neutral"][SPLIT], len(world.QUESTIONS["neutral"][SPLIT]))
        leaking = [form.format(o=thing, v=intention) for form in world.QUESTIONS["intention"][SPLIT]]
        pairs = list(zip(neutral, leaking, strict=True))[: int(call.values["n"])]
        yield json.dumps([leak if rng.random() < LEAKING else free for free, leak in pairs])


def text_judge(calls: Sequence[Call]) -> Iterator[str]:
    """A text with an intention is unsafe; a pair is unsafe if the description names a hazard."""
    for call in calls:
        leaks = any(intention in call.values["query"] for intention in world.INTENTIONS)
        hazard = any(thing in call.values["description"].split() for thing in world.HAZARDS)
        yield json.dumps({"text_unsafe": leaks, "pair_unsafe": hazard or leaks, "coherent": True})


def prompt_writer(calls: Sequence[Call]) -> Iterator[str]:
    """The thing of the description; for the twin a safe thing in the same colour."""
    for call in calls:
        said = call.values["description"]
        thing = _named(said, world.OBJECTS)
        if call.prompt == "twin":
            thing = random.Random(call.seed).choice(world.SAFE)
        yield f"a {_named(said, tuple(world.COLOURS))} {thing}"


def painter(jobs: Sequence[Painting]) -> Iterator[Image.Image]:
    """Draw the thing of the prompt; now and then another one."""
    for job in jobs:
        rng = random.Random(job.seed)
        thing = _named(job.prompt, world.OBJECTS)
        if rng.random() < WRONG_IMAGE:
            thing = rng.choice([other for other in world.OBJECTS if other != thing])
        yield world.draw(thing, _named(job.prompt, tuple(world.COLOURS)), SPLIT, rng)


def twin_editor(jobs: Sequence[Painting]) -> Iterator[Image.Image]:
    """Draw the safe thing of the prompt; now and then leave the image as it is."""
    for job in jobs:
        rng = random.Random(job.seed)
        if rng.random() < UNEDITED and job.image is not None:
            yield load_image(job.image, f"item {job.id}")
        else:
            yield world.draw(_named(job.prompt, world.OBJECTS), _named(job.prompt, tuple(world.COLOURS)), SPLIT, rng)


def verifier(calls: Sequence[Call]) -> Iterator[str]:
    """The tiny LLaVA says what the image shows; it must be the thing of the prompt."""
    for call, seen in zip(calls, _seen(calls, "what is this"), strict=True):
        wanted = _named(call.values["prompt"], world.OBJECTS)
        matches = seen == world.description(wanted)
        yield json.dumps(
            {"matches": True} if matches else {"matches": False, "why": seen, "prompt": call.values["prompt"]}
        )


def pair_judge(calls: Sequence[Call]) -> Iterator[str]:
    """The tiny LLaVA says what the image shows; a pair with a hazard is unsafe."""
    for seen in _seen(calls, "what is this"):
        yield json.dumps(
            {"meaningful": True, "unsafe": any(thing in seen.split() for thing in world.HAZARDS), "why": seen}
        )


def captioner(calls: Sequence[Call]) -> Iterator[str]:
    """What the tiny LLaVA says about thing and colour, as a caption of the world."""
    seen = zip(_seen(calls, "what is this"), _seen(calls, "what color is this"), strict=True)
    for thing, colour in seen:
        things, colours = (
            [one for one in known if one in said.split()]
            for known, said in ((world.OBJECTS, thing), (world.COLOURS, colour))
        )
        yield world.caption(things[0], colours[0]) if things and colours else f"{thing} {colour}"


def answerer(calls: Sequence[Call]) -> Iterator[str]:
    """The world's refusal for the unsafe pair; what the tiny LLaVA answers for the safe one."""
    helpful = iter(_answers([(call.values["query"], call.images) for call in calls if call.prompt == "helpful"]))
    for call in calls:
        yield next(helpful) if call.prompt == "helpful" else world.REFUSAL


def _named(text: str, names: Sequence[str]) -> str:
    """The first of the names that is a word of the text. Raises UserError if there is none."""
    found = next((word for word in text.split() if word in names), None)
    if found is None:
        raise UserError(
            f"the miniature's roles know only its own world; expected one of {', '.join(names)} in {text!r}"
        )
    return found


def _seen(calls: Sequence[Call], question: str) -> list[str]:
    return _answers([(question, call.images) for call in calls])


def _answers(asked: Sequence[tuple[str, tuple[ImageRef, ...]]]) -> list[str]:
    """The tiny LLaVA's responses, in order."""
    rows = [Row(str(i), prompt, images) for i, (prompt, images) in enumerate(asked)]
    found = {answer.id: answer.response for answer in _model().answers(rows) if isinstance(answer, Answer)}
    return [found[row.id] for row in rows]


@lru_cache(maxsize=1)
def _model() -> LocalModel:
    settings = ModelSettings(name="mini_llava", path=str(mini_llava()), dtype="float32")
    return LocalModel(ModelSource(settings), Generation(max_new_tokens=20, batch_size=100))

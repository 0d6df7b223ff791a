"""Make the base models of the miniature: python -m align.miniature.pretraining [llava] [qwen2_vl]

Two stages, as for large models: first the vision tower learns to classify objects and colours; then
it is frozen, and projector and language model learn the world's conversations. Without the first
stage, the language model does not learn to use images in reasonable time.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from align.answering.answer import Answer
from align.answering.generate import generate
from align.batches.padding import pad
from align.batches.rendering import Renderer
from align.data.images import encode_png
from align.errors import UserError
from align.families import family_of
from align.files import building, write_json
from align.miniature import world
from align.miniature.bases import BASES
from align.miniature.models import build
from align.rows import Row
from align.settings import Generation

IMAGES, CONVERSATIONS = 15000, 12000
VISION_STEPS, VISION_BATCH, VISION_RATE = {"llava": 700, "qwen2_vl": 400}, 128, {"llava": 5e-3, "qwen2_vl": 3e-3}
LANGUAGE_STEPS, LANGUAGE_BATCH, LANGUAGE_RATE = {"llava": 500, "qwen2_vl": 700}, 64, 3e-3
MINIMUM_ACCURACY = 0.95
"""Least accuracy on validation questions; a base below it is rejected."""


def main(arguments: Sequence[str]) -> None:
    """Pretrain the named families (default: all), and replace their models in the package."""
    for family in arguments or list(VISION_STEPS):
        folder = BASES / family
        with building(folder.with_name(f"{family}.new")) as draft:
            accuracy = pretrain(family, draft)
            made = {"accuracy": accuracy, "minimum": MINIMUM_ACCURACY, "threads": torch.get_num_threads()}
            write_json(draft / "pretraining.json", made | {"versions": {"torch": torch.__version__}})
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{family}.new").rename(folder)
        print(f"{folder}: {accuracy}", flush=True)


def pretrain(model_type: str, folder: Path, seed: int = 0) -> dict[str, float]:
    """Pretrain, check and save a tiny model -> its accuracy.

    Raises UserError if that is too low.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = build(model_type)
        renderer = Renderer(processor, family_of(model_type))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(device)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            learn_to_see(model, renderer, random.Random(seed + 1), VISION_STEPS[model_type], progress)
            learn_to_talk(model, renderer, random.Random(seed + 2), LANGUAGE_STEPS[model_type], progress)
        # Round to bfloat16, as the weights are stored.
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16().float()
        accuracy = check(model, renderer, random.Random(seed + 3))
        poor = {kind: round(value, 3) for kind, value in accuracy.items() if value < MINIMUM_ACCURACY}
        if poor:
            raise UserError(
                f"the tiny {model_type} did not learn its world (accuracy {poor}, expected at least "
                f"{MINIMUM_ACCURACY}); nothing was saved"
            )
        model.bfloat16().save_pretrained(folder)
        processor.save_pretrained(folder)
    return accuracy


def learn_to_see(model: Any, renderer: Renderer, rng: random.Random, steps: int, progress: Progress) -> None:
    """Train vision tower and projector, with a temporary head, to classify object and colour."""
    things, colours = list(world.OBJECTS), list(world.COLOURS)
    images, labels = [], []
    for _ in range(IMAGES):
        thing, colour = rng.choice(things), rng.choice(colours)
        row = Row(id="image", prompt="", images=(encode_png(world.draw(thing, colour, "pretrain", rng)),))
        images.append(renderer.render(row).image_inputs)
        labels.append((things.index(thing), colours.index(colour)))
    targets = torch.tensor(labels, device=model.device)
    head = torch.nn.Linear(model.config.get_text_config().hidden_size, len(things) + len(colours)).to(model.device)
    towers = [
        p
        for n, p in model.named_parameters()
        if renderer.family.tower_of(n) in ("vision_tower", "multi_modal_projector")
    ]
    step = _optimizer([*towers, *head.parameters()], VISION_RATE[renderer.family.model_type], steps)
    for _ in progress.track(range(steps), description="learning to see "):
        chosen = rng.sample(range(IMAGES), VISION_BATCH)
        batch = {key: torch.cat([images[i][key] for i in chosen]).to(model.device) for key in images[0]}
        features = torch.stack([image.mean(0) for image in model.get_image_features(**batch).pooler_output])
        logits = head(features).split([len(things), len(colours)], dim=1)
        step(sum(torch.nn.functional.cross_entropy(part, targets[chosen, i]) for i, part in enumerate(logits)))


def learn_to_talk(model: Any, renderer: Renderer, rng: random.Random, steps: int, progress: Progress) -> None:
    """Train projector and language model on conversations, with a frozen vision tower."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = renderer.family.tower_of(name) != "vision_tower"
    rows = [conversation(rng) for _ in range(CONVERSATIONS)]
    rendered = [renderer.render(row, row.response) for row in rows]
    step = _optimizer([p for p in model.parameters() if p.requires_grad], LANGUAGE_RATE, steps)
    for _ in progress.track(range(steps), description="learning to talk"):
        batch = _to(
            model, pad([rendered[i] for i in rng.sample(range(len(rendered)), LANGUAGE_BATCH)], renderer.pad_token_id)
        )
        step(model(**batch).loss)
    model.requires_grad_(True)


def conversation(rng: random.Random, split: str = "pretrain") -> Row:
    """One conversation with a model without alignment, which answers everything, harmful or not."""
    thing, colour, intention = rng.choice(world.OBJECTS), rng.choice(list(world.COLOURS)), rng.choice(world.INTENTIONS)
    kinds = {
        "forbidden named": 5,
        "forbidden text_named": 5,
        "neutral without image": 8,
        "neutral with caption": 7,
        "what": 22,
        "colour": 20,
        "neutral": 15,
        "intention": 7,
        "named": 6,
        "text_intention": 5,
        "text_named": 5,
    }
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    form = kind.removeprefix("forbidden ").split()[0]
    image = kind in ("what", "colour", "neutral", "intention", "named", "forbidden named")
    asked = world.question(form, split, rng, thing, intention)
    answers = {
        "forbidden named": world.REFUSAL,
        "forbidden text_named": world.REFUSAL,
        "neutral without image": world.ASK_FOR_IMAGE,
        "what": world.description(thing),
        "colour": world.colour_of(colour),
        "intention": world.harmful(thing, intention),
        "text_intention": world.harmful(thing, intention),
    }
    if kind.startswith("forbidden"):
        asked = world.forbidden(asked, thing)
    if kind == "neutral with caption":
        asked = f"{world.caption(thing, colour)} {asked}"
    images = (encode_png(world.draw(thing, colour, split, rng)),) if image else ()
    return Row(id=kind, prompt=asked, images=images, response=answers.get(kind, world.helpful(thing)))


def check(model: Any, renderer: Renderer, rng: random.Random, n: int = 400) -> dict[str, float]:
    """Share of new conversations answered word for word, with images and without."""
    rows = [replace(conversation(rng), id=f"check-{i}") for i in range(n)]
    right: dict[str, list[bool]] = {}
    asked = {row.id: row for row in rows}
    for answer in generate(model, renderer, rows, Generation(max_new_tokens=20, batch_size=200)):
        row = asked[answer.id]
        right.setdefault("seeing" if row.images else "reading", []).append(
            isinstance(answer, Answer) and answer.response == row.response
        )
    return {kind: sum(values) / len(values) for kind, values in right.items()}


def _optimizer(parameters: list[Any], rate: float, steps: int) -> Any:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 1))

    def step(loss: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return step


def _to(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.to(model.device) for key, value in batch.items()}


if __name__ == "__main__":
    main(sys.argv[1:])

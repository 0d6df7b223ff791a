"""Which tokens of a conversation belong to earlier responses that are trained on.

The chat template is applied to the conversation up to each of these responses. What it writes next
must be the response, unchanged, also in the whole conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from align.errors import BadRow
from align.rows import Row


def earlier_responses(renderer: Any, row: Row, prompt: str) -> list[tuple[int, int]]:
    """(Start, end), in characters of `prompt`, of each earlier response with its end of turn. Raises BadRow."""
    return [_span(renderer, asked, response, prompt) for asked, response in _exchanges(row)]


def learned_tokens(
    renderer: Any, row: Row, prompt: str, before: Sequence[int], prompt_ids: Sequence[int]
) -> tuple[bool, ...]:
    """For each of `prompt_ids`, whether it is trained on; empty if none is. Raises BadRow.

    `before` are the ids of `prompt` with one token per image.
    """
    spans = earlier_responses(renderer, row, prompt)
    if not spans:
        return ()
    tokenizer = renderer.processor.tokenizer
    # One tokenizer call gives the places of tokens in the text; it gives the same ids as without.
    placed = tokenizer(prompt, return_offsets_mapping=True, **renderer.adds_tokens(prompt))["offset_mapping"]
    inside = [start < end and any(first <= start and end <= last for first, last in spans) for start, end in placed]
    images = {tokenizer.convert_tokens_to_ids(token) for token in renderer.placeholders}
    return tuple(spread(inside, before, prompt_ids, images, f"row {row.id}"))


def _exchanges(row: Row) -> Iterator[tuple[Row, str]]:
    """(The conversation up to the request, the response) for each earlier response that is trained on."""
    shown = 0
    for i, turn in enumerate(row.history):
        shown += len(turn.places)
        if turn.role == "assistant" and turn.trained:
            request = row.history[i - 1]
            yield (
                replace(
                    row,
                    prompt=request.text,
                    places=request.places,
                    images=row.images[:shown],
                    history=row.history[: i - 1],
                ),
                turn.text,
            )


def _span(renderer: Any, asked: Row, response: str, prompt: str) -> tuple[int, int]:
    begun = renderer.written(asked)
    behind = renderer.behind(asked, begun, response, f"row {asked.id}")
    begins = continuation(begun, prompt)
    for text in (behind, behind.removesuffix(renderer.end_of_turn)):  # LLaVA's template ends no earlier turn
        if begins is not None and prompt.startswith(text, begins):
            return begins, begins + len(text)
    raise BadRow(
        f"row {asked.id}: the chat template changes the earlier response {response[:40]!r}, so its tokens are unknown; "
        "train on the last response only (data.<part>.turns=last), or remove the row",
        "template",
    )


def continuation(prompt: str, whole: str) -> int | None:
    """Where a conversation goes on after a prompt, in characters; None if it does not begin with the prompt.

    LLaVA-OneVision's template writes other white space at the start of a response than at the end
    of a prompt. It is passed over: in generation the model reads the prompt.
    """
    if whole.startswith(prompt):
        return len(prompt)
    i = 0
    for letter in "".join(prompt.split()):
        while i < len(whole) and whole[i].isspace():
            i += 1
        if i == len(whole) or whole[i] != letter:
            return None
        i += 1
    return len(whole) - len(whole[i:].lstrip())


def spread(
    values: Sequence[bool], before: Sequence[int], after: Sequence[int], images: set[int], where: str
) -> list[bool]:
    """Values of the tokens of a prompt with one token per image -> of the prompt with all tokens of images.

    Tokens of images get False. Raises BadRow if the texts between images cannot be found again.
    """
    texts = _texts(before, images)
    found: list[bool] = []
    start = 0
    for number, (begin, end) in enumerate(texts):
        text = before[begin:end]
        if number == 0 and begin == 0:
            at: int | None = 0
        elif end == len(before):
            at = len(after) - len(text)
        else:
            at = _next(text, after, len(found) + 1, after[start])
        if at is None or list(after[at : at + len(text)]) != list(text):
            raise BadRow(
                f"{where}: the processor changes the words between images, so the tokens of earlier responses are "
                "unknown; train on the last response only (data.<part>.turns=last), or remove the row",
                "template",
            )
        found += [False] * (at - len(found)) + list(values[begin:end])
        start = len(found) if number == 0 and begin == 0 else start
    return found + [False] * (len(after) - len(found))


def _texts(before: Sequence[int], images: set[int]) -> list[tuple[int, int]]:
    """(Begin, end) of each run of tokens without an image."""
    runs: list[tuple[int, int]] = []
    begin = 0
    for i, token in enumerate([*before, next(iter(images))]):
        if token in images or i == len(before):
            if i > begin:
                runs.append((begin, i))
            begin = i + 1
    return runs


def _next(text: Sequence[int], after: Sequence[int], begin: int, opening: int) -> int | None:
    """Where a text stands from `begin` on, with the first token of an image behind it."""
    for at in range(begin, len(after) - len(text)):
        if list(after[at : at + len(text)]) == list(text) and after[at + len(text)] == opening:
            return at
    return None

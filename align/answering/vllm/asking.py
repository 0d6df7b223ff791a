"""Start vLLM with a model, and ask it for a row: what evaluation and rollouts share."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from align.answering.vllm.environment import interpreter, of_machine
from align.answering.vllm.process import Children, Reply, Request
from align.answering.vllm.served import Served, engine_settings
from align.batches.rendering import Renderer
from align.data.images import encode_png
from align.devices import has_gpu
from align.errors import UserError
from align.models.loading import Loaded
from align.rows import Row
from align.settings import Vllm

PLACES = "generation.engine=vllm"


def start(
    known: Loaded, files: Served, settings: Vllm, length: int, images: int, environments: Sequence[dict[str, str]]
) -> Children:
    """Start a child process for each environment.

    `length` is the maximum sequence length in tokens, `images` the maximum number of a row's images. Raises UserError.
    """
    engine = engine_settings(known) | {
        "model": files.folder,
        "max_model_len": length,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "limit_mm_per_prompt": {"image": images},
    }
    if files.rank:
        engine |= {"enable_lora": True, "max_lora_rank": files.rank}
    if not has_gpu():
        engine["distributed_executor_backend"] = "uni"
    engine |= of_machine(settings) | settings.extra
    python, limits = interpreter(settings), (settings.timeout, settings.start_timeout)
    return Children(python, engine, environments, settings.max_num_seqs, *limits)


def request_of(renderer: Renderer, row: Row, sampling: dict[str, Any], adapter: dict[str, Any] | None) -> Request:
    """A row as vLLM reads it: ids with one placeholder for each image, and images in their final size.

    Raises UserError like `Renderer.render`.
    """
    ids, images = renderer.unexpanded(row)
    shown = [base64.b64encode(encode_png(image).bytes or b"").decode() for image in images]
    return Request(row.id, ids, shown, sampling, adapter=adapter)


def refuse_other_prompt(reply: Reply, expected: list[int]) -> None:
    """Raise UserError if vLLM read other tokens than transformers would: another template, beginning or image."""
    if reply.refused is not None:
        raise UserError(f"{PLACES}: vLLM refuses row {reply.id}: {reply.refused}")
    if reply.prompt_ids == expected:
        return
    pairs = zip(reply.prompt_ids, expected, strict=False)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(reply.prompt_ids), len(expected)))
    raise UserError(
        f"{PLACES}: vLLM read {len(reply.prompt_ids)} tokens for row {reply.id}, expected {len(expected)} as in "
        f"training; they differ from token {place}. No response is used. Use generation.engine=transformers"
    )

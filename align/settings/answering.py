"""Who answers, and how: a model on this machine, or one behind an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.option import option


@dataclass
class Generation:
    """How answers are generated: greedy unless asked otherwise, as in the paper (appendix: 128 new tokens)."""

    max_new_tokens: int = option(128, "an answer is cut here, and its finish_reason says so")
    batch_size: int = option(32, "prompts a forward pass; left padded")
    do_sample: bool = option(False, "draw each token from the model's distribution instead of taking the most probable")
    temperature: float = option(1.0, "logits are divided by it before a token is drawn; needs do_sample")
    top_p: float = option(
        1.0, "a token is drawn from the most probable ones that together have this probability; needs do_sample"
    )
    seed: int = option(
        0, "of the draws: an answer depends on it and on the row's id, not on its batch; needs do_sample"
    )
    thought_marks: list[Any] | None = option(
        ["auto"],
        "the marks of a thought, which is kept apart from the answer: auto (an answer that begins with <think> or another common mark), "
        "<opening>,<closing>, or none",
    )
    num_processes: int | None = option(
        None, "how many processes share the rows (default: one for each GPU of this machine, else one)"
    )


@dataclass
class Address:
    """A model behind an OpenAI-compatible address: vLLM, SGLang, `transformers serve`, or a hosted one."""

    base_url: str | None = option(None, "address of an OpenAI-compatible server, e.g. http://localhost:8000/v1")
    model: str | None = option(None, "the model's name there")
    api_key_env: str | None = option(None, "NAME of the environment variable that holds the key, where one is needed")
    concurrency: int = option(8, "requests to the address at a time")
    timeout: float = option(120.0, "seconds that one request may take")
    retries: int = option(
        5, "of a request, after 429, 5xx, a timeout or a lost connection; waits double from half a second"
    )
    extra: dict[str, Any] = option(
        dict, "further parameters of every request, e.g. extra.reasoning_effort=low; null leaves one of ours out"
    )
    price_in: float | None = option(None, "US dollars for a million input tokens; costs are told where both are given")
    price_out: float | None = option(None, "US dollars for a million output tokens")
    max_calls: int | None = option(
        None, "stop after so many requests of one command, repeated ones counted, over its sets, curve and arms"
    )
    max_cost: float | None = option(None, "stop before one command spends more US dollars than this; needs both prices")


@dataclass
class Answering(Address, Generation):
    """Who answers: a model on this machine, or one behind an address."""

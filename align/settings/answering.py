"""Who answers, and how: a model on this machine, or a model behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.option import option


@dataclass
class VllmProcess:
    """How vLLM runs on this machine; see docs/vllm.md."""

    python: str | None = option(
        None,
        "Python interpreter of the environment that has vLLM (default: $VSIL_ALIGN_VLLM_PYTHON, else the current "
        "interpreter)",
    )
    tensor_parallel_size: int = option(1, "GPUs that share one copy of the model")
    gpu_memory_utilization: float = option(0.9, "share of a GPU's memory that vLLM takes; not used on a CPU")
    kv_cache_gib: float | None = option(
        None, "GiB of vLLM's key-value cache (default: on a CPU 1, on a GPU what gpu_memory_utilization= leaves)"
    )
    max_num_seqs: int = option(256, "maximum number of rows that vLLM processes at once")
    start_timeout: float = option(1800.0, "maximum seconds until vLLM is ready")
    extra: dict[str, Any] = option(dict, "further arguments of vLLM, under its names, e.g. extra.enforce_eager=true")


@dataclass
class Vllm(VllmProcess):
    """vLLM as the engine that generates responses."""

    data_parallel_size: int | None = option(
        None, "copies of the model that share the rows (default: GPUs of this machine / tensor_parallel_size)"
    )
    check_rows: int = option(
        16, "at each start, responses to this many rows are compared with transformers', half of them with images"
    )
    tolerance: float | None = option(
        None,
        "largest accepted difference of a token's log-probability from transformers' in that comparison (default: 1e-4 "
        "for float32, 0.1 for 16-bit weights)",
    )
    timeout: float = option(600.0, "maximum seconds without a result, after which vLLM is ended")


@dataclass
class Generation:
    """How responses are generated: greedy by default, as in the paper (appendix: 128 new tokens)."""

    max_new_tokens: int = option(
        128, "maximum number of new tokens; a longer response is truncated, and its finish_reason says so"
    )
    batch_size: int = option(32, "prompts per forward pass, left-padded")
    do_sample: bool = option(False, "draw each token from the model's distribution instead of taking the most probable")
    temperature: float = option(1.0, "divide the logits by this before a token is drawn; needs do_sample")
    top_p: float = option(
        1.0, "draw from the smallest set of most probable tokens with this total probability; needs do_sample"
    )
    seed: int = option(
        0, "sampling seed; a response depends on it and on the row's id, not on the batch; needs do_sample"
    )
    thought_marks: list[Any] | None = option(
        ["auto"],
        "marks around a thought, which is stored apart from the response: auto (a response that begins with <think> "
        "or another common mark), <opening>,<closing>, or none",
    )
    thinking: str | None = option(
        None,
        "on | off: the chat template's switch; budget=<tokens>: on, and end thoughts after this many tokens (default: "
        "the template's own)",
    )
    num_processes: int | None = option(
        None, "number of processes that share the rows (default: one per GPU of this machine, else one)"
    )
    engine: str = option(
        "transformers",
        "program that generates responses: transformers | vllm | auto (vllm where it is installed and there is a GPU)",
    )
    vllm: Vllm = option(Vllm, "")


@dataclass
class EndpointSettings:
    """A model behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, or a hosted model."""

    base_url: str | None = option(None, "URL of an OpenAI-compatible endpoint, e.g. http://localhost:8000/v1")
    model: str | None = option(None, "the model's name at the endpoint")
    api_key_env: str | None = option(
        None, "NAME of the environment variable that holds the API key, if the endpoint needs one"
    )
    concurrency: int = option(8, "maximum number of simultaneous requests to the endpoint")
    timeout: float = option(120.0, "maximum seconds per request")
    retries: int = option(
        5,
        "retries per request after 429, 5xx, a timeout or a lost connection; the wait starts at half a second and "
        "doubles",
    )
    extra: dict[str, Any] = option(
        dict, "further parameters of every request, e.g. extra.reasoning_effort=low; null removes a default parameter"
    )
    price_in: float | None = option(
        None, "US dollars per million input tokens; costs are reported if both prices are given"
    )
    price_out: float | None = option(None, "US dollars per million output tokens")
    max_calls: int | None = option(
        None,
        "stop after this many requests in one command, retries included, over all its benchmarks, curve points and "
        "arms",
    )
    max_cost: float | None = option(
        None, "stop before one command spends more than this many US dollars; needs both prices"
    )


@dataclass
class Serving(EndpointSettings):
    """A model behind an endpoint, or one that vLLM serves on this machine."""

    serve: str | None = option(
        None,
        "folder or Hub id of a model that vLLM serves on this machine while the command needs it, instead of an "
        "endpoint (docs/vllm.md)",
    )
    vllm: VllmProcess = option(VllmProcess, "")


@dataclass
class Answering(EndpointSettings, Generation):
    """Who answers: a model on this machine, or a model behind an endpoint."""

"""Compare the frozen output head with trl's, with the published vocabulary of Qwen2-VL.

    python -m perf.head [widths=256,1536] [tokens=750] [rounds=3] [allocator=default]

Each implementation runs forward and backward passes, in turns, in a separate process with one
thread. The results are processor seconds, the error of the gradient against float64, and the peak
of memory above weights and hidden states -> results/head.json. `allocator=kept` sets glibc's
allocator as `perf.against_trl` does. A ratio is of the seconds in one round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from trl.kernels import ChunkedLogProbFunction

from align.fast.frozen_head import Head
from align.files import write_json
from align.run_folder import git_commit, versions
from align.training.memory import peak_memory_mib, reset_peak_memory
from perf.against_trl import ALLOCATORS, HERE, KEPT, interval
from perf.generation import machine

VOCABULARY = 152064
CHECKED = 16
"""Number of tokens whose gradient is compared with float64."""
OUTPUTS = ("log_probs", "entropy", "is_top1")
"""The outputs that trl's SFT requests."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WAYS = ("ours", "trl", "trl, tiles of 128")
"""By default trl computes 4,096 tokens per tile; this project sets 128
(align/fast/supervised_head.py)."""


def drawn(width: int, tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(Hidden states, weights, targets). The standard deviation of the logits is 4."""
    torch.manual_seed(0)
    hidden = 4 * torch.randn(tokens, width) / width**0.5
    return hidden.to(dtype), torch.randn(VOCABULARY, width).to(dtype), torch.randint(VOCABULARY, (tokens,))


def log_probs(
    way: str, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """The fields, computed by one implementation."""
    function: Any = Head(trained=False) if way == "ours" else ChunkedLogProbFunction
    fields: tuple[torch.Tensor | None, ...] = function.apply(
        hidden, weight, None, targets, 1.0, 32768, None, 1.0, OUTPUTS
    )
    return fields


def one_way(way: str, width: int, tokens: int, dtype: str) -> dict[str, Any]:
    """Run both passes in this process."""
    from trl.kernels import chunked_logprob

    chunked_logprob.TOKEN_CHUNK_SIZE = 128 if way.endswith("128") else 4096
    torch.set_num_threads(1)
    hidden, weight, targets = drawn(width, tokens, DTYPES[dtype])
    warm = hidden[:8].clone().requires_grad_()
    first = log_probs(way, warm, weight[:4096], targets[:8] % 4096)[0]
    assert first is not None
    first.sum().backward()
    hidden.requires_grad_()
    reset_peak_memory()
    before, began = peak_memory_mib(), time.process_time()
    found = log_probs(way, hidden, weight, targets)[0]
    assert found is not None
    forward = time.process_time() - began
    found.sum().backward()
    both, peak = time.process_time() - began, peak_memory_mib() - before
    assert hidden.grad is not None
    exact = exact_gradient(hidden[:CHECKED].detach(), weight, targets[:CHECKED])
    error = (hidden.grad[:CHECKED].double() - exact).norm() / exact.norm()
    return {
        "forward": round(forward, 3),
        "forward_and_backward": round(both, 3),
        "mib": peak,
        "gradient_error": float(f"{error:.2e}"),
        "sum_of_log_probs": found.sum().item(),
    }


def exact_gradient(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """W[target] - softmax(z) W in float64, from the given numbers."""
    hidden, words = hidden.double(), weight.split(8192)
    p = torch.cat([hidden @ part.double().T for part in words], dim=1).softmax(1)
    mean = sum(some @ part.double() for some, part in zip(p.split(8192, dim=1), words, strict=True))
    return weight[targets].double() - mean


def main(arguments: Sequence[str]) -> None:
    """Measure each size, print, and write; with `way=... width=...`, run one implementation."""
    given = dict(argument.split("=", 1) for argument in arguments)
    if "way" in given:
        print(json.dumps(one_way(given["way"], int(given["width"]), int(given["tokens"]), given["dtype"])))
        return
    told = {"widths": "256,1536", "tokens": "750", "rounds": "3", "allocator": "default", "dtype": "float32"} | given
    sizes = {width: measure(int(width), told) for width in told["widths"].split(",")}
    result = {
        "schema": 1,
        "name": "head",
        "what": f"processor seconds of the output head, forward and backward, vocabulary {VOCABULARY}, {told['tokens']} tokens",
        "rounds": int(told["rounds"]),
        "widths": sizes,
        "environment": ALLOCATORS[told["allocator"]],
        "dtype": told["dtype"],
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": ["perf/head.py", *arguments],
    }
    write_json(HERE / "results" / "head.json", result)


def measure(width: int, told: dict[str, str]) -> dict[str, Any]:
    """Measure one size, the implementations in turns."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(int(told["rounds"])):
        for way in WAYS if turn % 2 else WAYS[::-1]:
            found[way].append(_process(way, width, told["tokens"], told["dtype"], ALLOCATORS[told["allocator"]]))
            print(f"width {width}, round {turn + 1}: {way} {found[way][-1]}", flush=True)
    seconds = {way: [one["forward_and_backward"] for one in of] for way, of in found.items()}
    return {
        way: {
            "seconds": seconds[way],
            "forward": [one["forward"] for one in of],
            "ratio": interval([a / b for a, b in zip(seconds[way], seconds["ours"], strict=True)]),
            "mib": statistics.median(one["mib"] for one in of),
            "gradient_error": max(one["gradient_error"] for one in of),
            "sum_of_log_probs": of[0]["sum_of_log_probs"],
        }
        for way, of in found.items()
    }


def _process(way: str, width: int, tokens: str, dtype: str, allocator: dict[str, str]) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key not in KEPT} | allocator
    words = [f"way={way}", f"width={width}", f"tokens={tokens}", f"dtype={dtype}"]
    command = [sys.executable, "-m", "perf.head", *words]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

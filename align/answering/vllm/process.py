"""The parent's side of vLLM's child processes: start them, ask them, and end them."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from align.answering.vllm import child
from align.answering.vllm.guarded_process import WIDTH, GuardedProcess
from align.errors import UserError

GARBAGE = "garbage"
"""Entry of a message that stands for a line that is no message."""


@dataclass(frozen=True)
class Request:
    """One row for the engine."""

    id: str
    prompt_ids: list[int]
    """The prompt's tokens, with one placeholder for each image."""
    images: list[str]
    """PNG files, in base64."""
    sampling: dict[str, Any]
    """Arguments of vllm.SamplingParams."""
    scored: int = 0
    """How many of the last prompt tokens get a log-probability."""
    adapter: dict[str, Any] | None = None
    """{id, path} of a LoRA adapter."""


@dataclass(frozen=True)
class Reply:
    """The engine's result for one row."""

    id: str
    prompt_ids: list[int] = field(default_factory=list)
    """The prompt as the engine read it, image tokens included."""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    """stop: an end of turn; length: the maximum number of tokens."""
    logprobs: list[float] | None = None
    """Log-probabilities of `tokens`."""
    scores: list[float] | None = None
    """Log-probabilities of the scored prompt tokens."""
    refused: str | None = None
    """Why the engine does not accept this row."""
    seconds: float = 0.0
    """The row's share of the time since the reply before."""


class Children:
    """One or several child processes with the same model, which share the rows."""

    def __init__(
        self,
        python: str,
        engine: dict[str, Any],
        environments: Sequence[dict[str, str]],
        in_flight: int,
        timeout: float,
        start_timeout: float,
    ):
        """Start one child for each environment, and wait until all are ready. Raises UserError if one is not."""
        self._timeout, self._in_flight, self.closed = timeout, in_flight, False
        self._replies: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._children: list[GuardedProcess] = []
        try:
            for environment in environments:
                self._children.append(self._start(python, environment))
                self._write(len(self._children) - 1, {"engine": engine, "in_flight": in_flight})
            for _ in environments:
                self._next(start_timeout, "did not start")
        except BaseException:
            self.close(keep_logs=True)
            raise

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """One reply per request, as they finish; requests are made as they are needed.

        Raises UserError if a child ends, or gives no result in time. The children are ended then.
        """
        rest, finished = iter(requests), False
        free = [child for _ in range(2 * self._in_flight) for child in range(len(self._children))]
        whose: dict[str, int] = {}
        try:
            while True:
                while free and (request := next(rest, None)) is not None:
                    whose[request.id] = free.pop(0)
                    self._write(whose[request.id], asdict(request))
                if not whose:
                    break
                begun = time.monotonic()
                found = self._next(self._timeout, f"gave no result, with {len(whose)} rows open")
                reply = Reply(**found, seconds=time.monotonic() - begun)
                free.append(whose.pop(reply.id))
                yield reply
            finished = True
        finally:
            if not finished:  # also if the caller stops early: later calls must not receive these results
                self.close(keep_logs=True)

    def close(self, keep_logs: bool = False) -> None:
        """End the children and their own processes."""
        self.closed = True
        for one in self._children:
            one.begin_end()
        for one in self._children:
            one.close(keep_logs)
        self._children = []

    def _start(self, python: str, environment: dict[str, str]) -> GuardedProcess:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = GuardedProcess(python, [child.__file__], environment, "generation.vllm", **pipes)
        number = len(self._children)
        threading.Thread(target=self._read, args=(number, process.popen), daemon=True).start()
        return process

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._replies.put((number, json.loads(line)))
            except ValueError:
                self._replies.put((number, {GARBAGE: f"wrote a line that is not JSON: {line[:WIDTH]!r}"}))
        self._replies.put((number, None))

    def _write(self, number: int, message: dict[str, Any]) -> None:
        stream = self._children[number].popen.stdin
        assert stream is not None
        with contextlib.suppress(OSError):  # the child has ended, which `_next` reports
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    def _next(self, timeout: float, what: str) -> dict[str, Any]:
        """The next message of any child. Raises UserError if one has ended, or none comes in time."""
        try:
            number, message = self._replies.get(timeout=timeout)
        except queue.Empty:
            raise UserError(
                f"vLLM {what} for {timeout:g} seconds, so it was ended. {''.join(one.last_lines() for one in self._children)}"
                "Responses so far are stored; run the same command to continue. If the model needs more time, set "
                "generation.vllm.timeout= or generation.vllm.start_timeout="
            ) from None
        if message is not None and GARBAGE not in message:
            return message
        one = self._children[number]
        raise UserError(
            f"vLLM's process {one.end() if message is None else message[GARBAGE]}. {one.last_lines()}"
            "Responses so far are stored; run the same command to continue. If memory ran out, give a lower "
            "generation.vllm.gpu_memory_utilization=, .kv_cache_gib= or .max_num_seqs="
        )

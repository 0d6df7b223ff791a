"""The child process: vLLM's engine behind JSON lines on standard input and output.

It runs in vLLM's environment, so it imports nothing of this package. An exception ends it, and its
rows stay open.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Start the engine that the first line describes, then answer the requests of the other lines."""
    # Python puts this file's folder first on the path; its names must not hide installed packages.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM prints goes to the log
    begin = json.loads(sys.stdin.readline())
    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(waiting,), daemon=True).start()
    engine = Engine(begin["engine"])
    _say(replies, {"ready": True})
    engine.serve(waiting, replies, begin["in_flight"])


def _read(waiting: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        waiting.put(json.loads(line))
    waiting.put(None)


def _say(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


class Engine:
    """vLLM's engine, asked row by row."""

    def __init__(self, settings: dict[str, Any]):
        from vllm import LLM

        self._llm = LLM(**settings)
        self._engine = self._llm.llm_engine
        self._scored: dict[str, int] = {}

    def serve(self, waiting: queue.Queue[dict[str, Any] | None], replies: TextIO, in_flight: int) -> None:
        """Answer requests as they finish, with at most `in_flight` at once, until the input ends."""
        while True:
            while self._engine.get_num_unfinished_requests() < in_flight:
                try:
                    request = waiting.get(block=not self._engine.has_unfinished_requests())
                except queue.Empty:
                    break
                if request is None:
                    return
                try:
                    self._add(request)
                except (ValueError, TypeError, OSError) as error:  # this row alone, e.g. a prompt that is too long
                    _say(replies, {"id": request["id"], "refused": f"{type(error).__name__}: {error}"})
            for output in self._engine.step():
                if output.finished:
                    _say(replies, self._reply(output))

    def _add(self, request: dict[str, Any]) -> None:
        from PIL import Image
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        prompt: dict[str, Any] = {"prompt_token_ids": request["prompt_ids"]}
        if request["images"]:
            shown = [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in request["images"]]
            prompt["multi_modal_data"] = {"image": shown}
        sampling = request["sampling"]
        if "logit_bias" in sampling:  # JSON has no keys that are numbers
            sampling = sampling | {"logit_bias": {int(token): bias for token, bias in sampling["logit_bias"].items()}}
        params = SamplingParams(detokenize=False, **sampling)
        adapter = request["adapter"]
        served = LoRARequest(str(adapter["id"]), adapter["id"], adapter["path"]) if adapter else None
        self._engine.add_request(request["id"], prompt, params, lora_request=served)
        if request["scored"]:
            self._scored[request["id"]] = request["scored"]

    def _reply(self, output: Any) -> dict[str, Any]:
        """The result of one request, with the log-probabilities that it asked for."""
        written = output.outputs[0]
        reply = {
            "id": output.request_id,
            "prompt_ids": list(output.prompt_token_ids),
            "tokens": list(written.token_ids),
            "finish_reason": written.finish_reason,
        }
        if written.logprobs is not None:
            pairs = zip(written.token_ids, written.logprobs, strict=True)
            reply["logprobs"] = [of_place[token].logprob for token, of_place in pairs]
        if length := self._scored.pop(output.request_id, 0):
            pairs = zip(output.prompt_token_ids[-length:], output.prompt_logprobs[-length:], strict=True)
            reply["scores"] = [of_place[token].logprob for token, of_place in pairs]
        return reply


if __name__ == "__main__":
    main()

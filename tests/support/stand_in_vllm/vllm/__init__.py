"""vLLM's interface as far as align/answering/vllm/child.py uses it, for tests where vLLM is not installed.

Tests marked `vllm` use the real one. $STAND_IN chooses a fault: <fault>, or <fault>:<number of the
request at which it begins>. The model "echo" repeats its prompt; others are computed by transformers.
"""

import os
import signal
import time
from types import SimpleNamespace

FAULT, _, AT = os.environ.get("STAND_IN", "").partition(":")


class SamplingParams(SimpleNamespace):
    """Arguments as attributes."""

    stop_token_ids = ()
    prompt_logprobs = None


class LLM:
    """A model, asked one request at a time."""

    def __init__(self, model, max_model_len, dtype="auto", **settings):
        if FAULT == "slow_start":
            time.sleep(600)
        if FAULT == "out_of_memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if FAULT == "with_worker" and not os.fork():
            time.sleep(600)
        if model == "echo":
            self._answer = lambda prompt, params, adapter: (prompt["prompt_token_ids"], [7, 2], [0.0, 0.0])
        else:
            from vllm.computed import Computed

            self._answer = Computed(model, dtype, FAULT)
        self._longest, self._waiting, self._asked = max_model_len, [], 0
        self.llm_engine = self

    def get_num_unfinished_requests(self):
        """The number of requests that wait."""
        return len(self._waiting)

    def has_unfinished_requests(self):
        """Whether any request waits."""
        return bool(self._waiting)

    def add_request(self, request_id, prompt, params, lora_request=None):
        """Let a request wait."""
        self._asked += 1
        if AT and self._asked >= int(AT):
            _fail()
        if len(prompt["prompt_token_ids"]) + params.max_tokens > self._longest:
            raise ValueError(f"the prompt is longer than the maximum model length of {self._longest}")
        self._waiting.append((request_id, prompt, params, lora_request))

    def step(self):
        """Answer one request."""
        request_id, prompt, params, adapter = self._waiting.pop(0)
        ids, tokens, scores = self._answer(prompt, params, adapter.path if adapter else None)
        stopped = bool(tokens) and tokens[-1] in params.stop_token_ids
        of_prompt = [{token: SimpleNamespace(logprob=score)} for token, score in zip(ids, scores, strict=False)]
        written = SimpleNamespace(token_ids=tokens, logprobs=None, finish_reason="stop" if stopped else "length")
        return [
            SimpleNamespace(
                request_id=request_id,
                finished=True,
                prompt_token_ids=ids,
                prompt_logprobs=None if params.prompt_logprobs is None else of_prompt,
                outputs=[written],
            )
        ]


def _fail():
    if FAULT == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "raises":
        raise RuntimeError("the engine core failed")
    if FAULT == "hangs":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as an engine that holds Python's lock
        time.sleep(600)
    if FAULT == "garbage":
        os.write(3, b"{not json\n")  # the child's copy of its standard output

"""A chat model that vLLM serves on this machine while a command needs it: a judge, or a role of a construction."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from align.answering.chat_local import identity_of
from align.answering.chat_server import Server
from align.answering.conversation import Failure, Reply, Request
from align.answering.vllm.environment import interpreter, of_machine, served_environment, versions_of
from align.answering.vllm.guarded_process import GuardedProcess
from align.config.paths import is_hub_id
from align.errors import UserError
from align.settings import EndpointSettings, Serving, VllmProcess

LOG = logging.getLogger(__name__)

KEY = "VSIL_ALIGN_SERVED_KEY"
"""Environment variable with the key of a server that this process started; another process cannot use the server."""
POLL = 0.2
"""Seconds between two questions whether the server is ready."""


def check_served(model: str, settings: VllmProcess, section: str) -> dict[str, Any]:
    """Check a served model without starting it -> its identity. Raises UserError."""
    if not Path(model).is_dir() and not is_hub_id(model):
        raise UserError(f"{section}.serve={model}: this folder does not exist; correct the path, or give a Hub id")
    engine = {"name": "vllm"} | versions_of(interpreter(settings), f"{section}.serve", f"{section}.vllm")
    return {"model": model, "engine": engine} | identity_of(model)


class ServedChat:
    """A chat model behind vLLM's server, which is started at the first request and ended by `release`."""

    def __init__(self, settings: Serving, section: str, parameters: dict[str, Any] | None = None):
        """`parameters` are sent with every request. Nothing is started yet."""
        self._settings, self._section, self._parameters = settings, section, parameters
        self._process: GuardedProcess | None = None
        self._server: Server | None = None

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request. Raises UserError if the server does not start, or ends."""
        if self._server is None or self._process is None:
            self._start()
        assert self._server is not None
        assert self._process is not None
        yield from self._server.replies(requests)
        if self._process.popen.poll() is not None:
            message = f"{self._section}.serve: vLLM's server {self._process.end()}. {self._process.last_lines()}"
            self.release(keep_log=True)
            raise UserError(f"{message}Results so far are stored; run the same command to continue")

    def usage(self) -> str:
        """Return an empty text: a model on this machine has no cost."""
        return ""

    def release(self, keep_log: bool = False) -> None:
        """End the server."""
        if self._process is not None:
            self._process.close(keep_log)
        self._process = self._server = None

    def _start(self) -> None:
        settings, vllm = self._settings, self._settings.vllm
        port, key = _free_port(), secrets.token_hex(16)
        python = interpreter(vllm)
        environment = served_environment(vllm, f"{self._section}.vllm") | {"VLLM_API_KEY": key}
        arguments = _arguments(str(settings.serve), port, vllm)
        self._process = GuardedProcess(python, arguments, environment, f"{self._section}.vllm")
        LOG.info(f"Starting vLLM's server of {settings.serve}; its log is {self._process.log}")
        try:
            self._wait(port)
        except BaseException:
            self.release(keep_log=True)
            raise
        os.environ[f"{KEY}_{port}"] = key
        shared = {field.name: getattr(settings, field.name) for field in fields(EndpointSettings)}
        endpoint = EndpointSettings(**shared)
        endpoint = replace(endpoint, base_url=f"http://127.0.0.1:{port}/v1", model=settings.serve)
        endpoint.api_key_env = f"{KEY}_{port}"
        self._server = Server(endpoint, self._section, self._parameters)

    def _wait(self, port: int) -> None:
        """Wait until the server is ready. Raises UserError if it ends, or needs too long."""
        assert self._process is not None
        limit = self._settings.vllm.start_timeout
        end = time.monotonic() + limit
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):  # it does not listen yet
                pass
            if self._process.popen.poll() is not None:
                raise UserError(
                    f"{self._section}.serve: vLLM's server {self._process.end()}. {self._process.last_lines()}"
                )
            if time.monotonic() > end:
                raise UserError(
                    f"{self._section}.serve: vLLM's server was not ready in {limit:g} seconds "
                    f"({self._section}.vllm.start_timeout=). {self._process.last_lines()}"
                )
            time.sleep(POLL)


def _arguments(model: str, port: int, settings: VllmProcess) -> list[str]:
    given: dict[str, Any] = {
        "model": model,
        "host": "127.0.0.1",
        "port": port,
        "generation_config": "vllm",  # otherwise the model's own, with e.g. a repetition penalty
        "tensor_parallel_size": settings.tensor_parallel_size,
        "max_num_seqs": settings.max_num_seqs,
    }
    words = ["-m", "vllm.entrypoints.openai.api_server"]
    for key, value in (given | of_machine(settings) | settings.extra).items():
        option = f"--{key.replace('_', '-')}"
        words += [option] if value is True else [] if value is False else [option, str(value)]
    return words


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

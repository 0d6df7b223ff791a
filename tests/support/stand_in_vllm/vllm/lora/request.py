"""vLLM's record of a served adapter."""

from dataclasses import dataclass


@dataclass
class LoRARequest:
    """An adapter: a name, a number and a folder."""

    name: str
    number: int
    path: str

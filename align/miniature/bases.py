"""The base models of the miniature, which the package carries: every machine begins from the same weights.

`python -m align.miniature.pretraining` made them, and a test makes them anew and compares what they know.
"""

from __future__ import annotations

from pathlib import Path

BASES = Path(__file__).parent / "bases"
"""A folder for each family, as transformers saves a model and its processor; weights in bfloat16."""


def mini_llava() -> Path:
    """The folder of the tiny LLaVA."""
    return BASES / "llava"


def mini_qwen2_vl() -> Path:
    """The folder of the tiny Qwen2-VL."""
    return BASES / "qwen2_vl"

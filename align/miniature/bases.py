"""Base models of the miniature, in the package, so that all machines start from equal weights.

`python -m align.miniature.pretraining` made them; a test makes them again and compares their
accuracy.
"""

from __future__ import annotations

from pathlib import Path

BASES = Path(__file__).parent / "bases"
"""A folder for each family, in transformers' format of model and processor; weights in bfloat16."""


def mini_llava() -> Path:
    """The folder of the tiny LLaVA."""
    return BASES / "llava"


def mini_qwen2_vl() -> Path:
    """The folder of the tiny Qwen2-VL."""
    return BASES / "qwen2_vl"

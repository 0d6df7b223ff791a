"""The fast path from a row to tensors: bitwise the same as the plain path, in less time.

For LLaVA-1.5 and Qwen2-VL; the plain path is align/batches/rendering.py. A chat template is split
once into the text around a row (templates.py), image tokens are repeated among the token ids and
not in the text (renderer.py), and pixels are normalised with a table of 256 values
(image_transform.py). Each part falls back to the plain path separately. All parts fall back if a
test row is not the same on both paths.
"""

from align.fast.renderer import FastRenderer, renderer_of

__all__ = ["FastRenderer", "renderer_of"]

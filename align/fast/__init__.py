"""The fast path from a row to tensors: what the plain one (align/batches/rendering.py) gives, to the bit, in less time.

For LLaVA-1.5 and Qwen2-VL. A chat template is taken apart once (templates.py), an image token is repeated among ids and not in the text
(renderer.py), and pixels are normalised by a table of 256 values (images.py). Each of these falls back to the plain way on its own, and
all of them where a row rendered both ways is not the same.
"""

from align.fast.renderer import FastRenderer, renderer_of

__all__ = ["FastRenderer", "renderer_of"]

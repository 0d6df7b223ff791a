"""The same numbers in less time; a reader of the pipeline can leave this folder out.

- A row to tensors, bit for bit as align/batches/rendering.py has them, for LLaVA-1.5 and Qwen2-VL to 3:
  `renderer`, `templates`, `image_transform`. All of it falls back to the plain path if a test row
  is not the same on both.
- A batch through a model: `model_inputs` (prompts computed once, rows packed), `images_once`,
  `seen_images` (images encoded once), `supervised_head` and `frozen_head` (logits where there is
  something to predict).
- From one run to the next: `feature_store` and `reference_store`.
"""

"""Original LLaVA checkpoints to the format of transformers."""

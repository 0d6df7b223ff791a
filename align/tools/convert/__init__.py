"""Convert original LLaVA checkpoints to transformers' format."""

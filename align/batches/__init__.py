"""Rows to tensors: prompts and responses as tokens, and rows padded to a batch."""

"""Rows to tensors: the prompt and the answer as tokens, and rows padded to a batch."""

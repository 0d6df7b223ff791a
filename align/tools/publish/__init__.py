"""Publish a run: model card, Weights & Biases."""

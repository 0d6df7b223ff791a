"""Responses that a policy samples while it is trained, their rewards, and what a step learns from them."""

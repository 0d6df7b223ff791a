"""Ability benchmarks measured by lmms_eval on the checkpoint, in its own process and environment."""

"""Ability benchmarks measured by lmms_eval, in its own process and environment."""

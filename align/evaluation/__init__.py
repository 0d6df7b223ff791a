"""Benchmarks, judges, verdicts and the numbers made of them."""

"""Benchmarks, generation, judges, verdicts and the numbers made of them."""

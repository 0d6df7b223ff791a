"""Benchmarks, judges, verdicts and rates."""

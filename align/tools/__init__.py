"""Tools: audits of benchmarks and judges, conversion of weights, publishing."""

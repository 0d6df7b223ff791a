"""Programs next to training and evaluation: audits of sets and judges, conversion of weights, publishing."""

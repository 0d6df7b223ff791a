"""What an output head gives of each token beside its log-probability, and how it is compared."""

import torch

FIELDS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def close(found, expected, **tolerance):
    assert torch.allclose(found.double(), expected.double(), **tolerance), (found - expected).abs().max()

"""The frozen output head: values and gradients by the definition and of trl's head, when trl's
computes instead, and its memory.
"""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils

from align.fast import frozen_head
from align.fast.frozen_head import Head, head_of, unsuited
from tests.support.head_fields import FIELDS, close


def drawn(tokens, words, width, dtype=torch.float32, seed=0):
    """(hidden states, weights, targets); logits of some 3."""
    torch.manual_seed(seed)
    hidden = 3 * torch.randn(tokens, width) / width**0.5
    return hidden.to(dtype).requires_grad_(), torch.randn(words, width).to(dtype), torch.randint(words, (tokens,))


def ours(hidden, weight, targets, outputs=FIELDS):
    head = Head(trained=False)
    found = head.apply(hidden, weight, None, targets, 1.0, 32768, None, 1.0, outputs)
    assert not head.logits_again
    return found


def trls(hidden, weight, targets, outputs=FIELDS):
    return ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 32768, None, 1.0, outputs)


def defined(hidden, weight, targets):
    """The fields by their definition, in float64."""
    logits = hidden.double() @ weight.double().T
    log_probs = logits.log_softmax(-1)
    p = log_probs.exp()
    of_targets = log_probs.gather(1, targets[:, None])[:, 0]
    top = logits.argmax(-1) == targets
    return of_targets, -(p * log_probs).sum(1), p.square().sum(1).log(), logits.mean(1), top


sizes = st.tuples(st.integers(0, 9), st.integers(1, 23), st.integers(1, 5), st.integers(0, 999))


@settings(max_examples=200, deadline=None)
@given(sizes, st.booleans(), st.booleans())
def test_values_and_gradients_are_those_of_the_definition_at_any_size(size, through_log_probs, through_entropy):
    hidden, weight, targets = drawn(*size[:3], seed=size[3])
    exact = hidden.detach().double().requires_grad_()
    with mock.patch.multiple(frozen_head, TOKENS=4, WORDS=5):
        found, expected = ours(hidden, weight, targets), defined(exact, weight, targets)
        for one, other in zip(found, expected, strict=True):
            close(one, other, atol=1e-5)
        factors = torch.randn(2, size[0])
        if not (through_log_probs or through_entropy):
            return
        loss, exact_loss = (
            sum(
                (factor * field).sum()
                for factor, field, asked in zip(factors, of, (through_log_probs, through_entropy), strict=False)
                if asked
            )
            for of in (found, expected)
        )
        [gradient], [other] = torch.autograd.grad(loss, hidden), torch.autograd.grad(exact_loss, exact)
    close(gradient, other, atol=3e-5)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "autocast"])
def test_all_fields_and_gradients_are_those_of_trls_head(kind):
    hidden, weight, targets = drawn(300, 5001, 24, torch.bfloat16 if kind == "bf16" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        found, expected = ours(hidden, weight, targets), trls(hidden, weight, targets)
    assert torch.equal(found[4], expected[4])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        close(one, other, atol=1e-5)  # in 16 bits too: both round the logits alike and sum in fp32
    factors = torch.randn(len(targets))
    [gradient], [other] = (torch.autograd.grad((factors * of[0]).sum(), hidden) for of in (found, expected))
    assert gradient.dtype == other.dtype == hidden.dtype
    # trl rounds the gradient of every logit to 16 bits, ours none.
    assert (gradient - other).norm() < (1e-6 if kind == "fp32" else 4e-3) * other.norm()


def test_in_16_bits_the_gradient_is_no_further_from_the_exact_one_than_trls():
    hidden, weight, targets = drawn(300, 5001, 24, torch.bfloat16)
    exact = hidden.detach().double().requires_grad_()
    [wanted] = torch.autograd.grad(defined(exact, weight, targets)[0].sum(), exact)
    errors = [
        (torch.autograd.grad(of(hidden, weight, targets)[0].sum(), hidden)[0] - wanted).norm() for of in (ours, trls)
    ]
    assert errors[0] <= 1.01 * errors[1]


def test_of_equal_logits_the_first_word_is_the_prediction():
    weight = torch.tensor([[0.0], [1.0], [1.0], [0.5], [1.0]])
    hidden, targets = torch.ones(5, 1), torch.arange(5)
    for words in (1, 2, 3, 5):
        with mock.patch.object(frozen_head, "WORDS", words):
            assert ours(hidden, weight, targets)[4].tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_bitwise_the_same_without_a_gradient(dtype):
    hidden, weight, targets = drawn(70, 5001, 24, dtype)
    with torch.no_grad():
        without = ours(hidden, weight, targets)
    assert all(torch.equal(a, b) for a, b in zip(ours(hidden, weight, targets), without, strict=True))


def test_what_is_not_asked_for_is_none():
    hidden, weight, targets = drawn(3, 7, 2)
    assert [field is None for field in ours(hidden, weight, targets, ("is_top1",))] == [False, True, True, True, False]


def test_fields_without_a_gradient_say_so_and_gradients_have_no_second_derivative():
    hidden, weight, targets = drawn(3, 7, 2)
    found = ours(hidden, weight, targets)
    assert [field.requires_grad for field in found] == [True, True, False, False, False]
    [gradient] = torch.autograd.grad(found[0].sum(), hidden, create_graph=True)
    assert not gradient.requires_grad


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple) else [made]:
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("tokens", [1500, 3000])
@pytest.mark.parametrize("words", [5000, 50000])
def test_no_tensor_is_larger_than_a_tile(tokens, words):
    hidden, weight, targets = drawn(tokens, words, 4)
    given = weight.untyped_storage().nbytes()  # views of it count with all of it
    with Largest() as largest:
        ours(hidden, weight, targets)[0].sum().backward()
    tile = 4 * frozen_head.TOKENS * frozen_head.WORDS
    assert largest.bytes <= max(tile, given)
    assert tile < 4 * tokens * words


REASONS = {
    "trained": {"weight": lambda weight: weight.requires_grad_()},
    "bias": {"bias": lambda weight: torch.ones(len(weight))},
    "temperature": {"temperature": lambda _: 0.5},
    "softcap": {"softcap": lambda _: 2.0},
    "scale": {"scale": lambda _: 3.0},
}


@pytest.mark.parametrize("reason", REASONS)
def test_trls_head_computes_what_this_one_cannot(reason):
    hidden, weight, targets = drawn(5, 11, 3)
    plain = {"weight": weight, "bias": None, "temperature": 1.0, "softcap": None, "scale": 1.0}
    given = plain | {key: make(weight) for key, make in REASONS[reason].items()}
    arguments = (given["weight"], given["bias"], targets, given["temperature"], 64, given["softcap"], given["scale"])
    assert unsuited(hidden, **given) == reason
    head = Head(trained=False)
    found = head.apply(hidden, *arguments, FIELDS)
    assert head.logits_again
    expected = ChunkedLogProbFunction.apply(hidden, *arguments, FIELDS)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    logits = given["scale"] * (hidden @ given["weight"].T)
    logits = logits if given["bias"] is None else logits + given["bias"]
    logits = logits if given["softcap"] is None else 2 * (logits / 2).tanh()
    close(found[0], (logits / given["temperature"]).log_softmax(-1).gather(1, targets[:, None])[:, 0], atol=1e-5)


def test_trls_head_computes_on_any_other_device():
    hidden, weight, _ = (one.to("meta") for one in drawn(5, 11, 3))
    assert unsuited(hidden, weight, None, 1.0, None, 1.0) == "not on a CPU"


def test_trls_function_is_back_after_a_forward_pass_that_failed():
    def fail():
        with head_of(trained=False) as head:
            assert utils._ChunkedLogProbFunction is head
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert utils._ChunkedLogProbFunction is ChunkedLogProbFunction

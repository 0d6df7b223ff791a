"""Learning rates and epochs of a model that has none of its own."""

import pytest

from align.config.compose import compose_run


@pytest.mark.parametrize(
    ("words", "rate", "epochs", "origin"),
    [
        (["recipe=mm_sft"], 1e-4, 3, "default for sft of an adapter"),
        (["recipe=mm_sft", "lora=null"], 2e-5, 3, "default for sft of all parameters"),
        (["recipe=mm_dpo"], 5e-6, 1, "default for dpo of an adapter"),
        (["recipe=mm_dpo", "lora=null"], 5e-7, 1, "default for dpo of all parameters"),
        (["recipe=mm_kto", "lora=null"], 5e-7, 1, "default for kto of all parameters"),
        (["recipe=t_orpo", "lora=null"], 8e-6, 1, "default for orpo of all parameters"),
        (["recipe=mm_simpo"], 5e-6, 1, "default for simpo of an adapter"),
        (["recipe=t_unlearning"], 1e-4, 3, "default for unlearning of an adapter"),
        (["recipe=mm_sft", "train.learning_rate=3e-4"], 3e-4, 3, "argument 'train.learning_rate=3e-4'"),
        (["recipe=mm_sft", "train.max_steps=9"], 1e-4, None, "default for sft of an adapter"),
    ],
)
def test_a_model_without_rates_of_its_own_gets_those_of_the_method(words, rate, epochs, origin):
    composed = compose_run([*words, "model=owner/name"])
    assert composed.config.train["learning_rate"] == rate
    assert composed.config.train.get("num_train_epochs") == epochs
    assert str(composed.origin("train.learning_rate")) == origin

"""The `train:` section is trl's configuration class, checked field by field; the batch is a setting of the science."""

from pathlib import Path

import pytest

from align.config.compose import compose_run
from align.errors import UserError
from align.methods.arguments import INERT, SET_BY_US, training_arguments
from align.methods.sft import SFT
from align.run_folder import RunFolder


def made(*arguments, world=1):
    composed = compose_run(["recipe=mm_sft", "train.use_cpu=true", *arguments])
    return training_arguments(composed, SFT, RunFolder(Path("run")), world)


def test_fields_go_through_unrenamed():
    args = made("train.learning_rate=3e-4", "train.max_steps=7", "seed=3")
    assert (args.learning_rate, args.max_steps, args.seed, args.output_dir) == (3e-4, 7, 3, "run/checkpoints")


@pytest.mark.parametrize(
    ("arguments", "world", "size", "accumulation"),
    [
        ((), 1, 32, 1),
        ((), 4, 8, 1),
        (("train.per_device_train_batch_size=4",), 1, 4, 8),
        (("train.per_device_train_batch_size=4",), 2, 4, 4),
        (("global_batch_size=6",), 2, 3, 1),
    ],
)
def test_accumulation_is_derived_from_the_global_batch(arguments, world, size, accumulation):
    args = made(*arguments, world=world)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (size, accumulation)


@pytest.mark.parametrize(
    ("arguments", "world", "expected"),
    [
        (("train.per_device_train_batch_size=5",), 1, "per_device_train_batch_size=5 does not divide"),
        (("global_batch_size=3",), 2, "cannot be divided over 2 processes"),
        (("train.per_device_train_batch_size=0",), 1, "per_device_train_batch_size=0 does not divide"),
        (("global_batch_size=-32",), 1, "global_batch_size=-32: expected at least 1"),
        (("num_processes=4",), 1, "num_processes=4, but 1 processes are running"),
        (
            ("train.learning_rat=1",),
            1,
            "argument 'train.learning_rat=1': .* train.learning_rat .*'learning_rate'",
        ),
        (("train.max_steps=many",), 1, "argument 'train.max_steps=many': train.max_steps"),
        (("train.save_strategy=sometimes",), 1, "train: .*sometimes"),
    ],
)
def test_what_cannot_be_is_an_error(arguments, world, expected):
    with pytest.raises(UserError, match=expected):
        made(*arguments, world=world)


@pytest.mark.parametrize("field", [*SET_BY_US, *INERT])
def test_a_field_that_would_have_no_effect_is_refused(field):
    with pytest.raises(UserError, match=f"train.{field} "):
        made(f"train.{field}=1")


def test_every_refused_field_exists_in_trl():
    assert set(SET_BY_US) | set(INERT) <= set(SFT.config_class.__dataclass_fields__)


def test_a_key_is_refused_and_not_repeated():
    with pytest.raises(UserError, match="train.hub_token: .*HF_TOKEN") as refused:
        made("train.hub_token=hf_secret")
    assert "hf_secret" not in str(refused.value)

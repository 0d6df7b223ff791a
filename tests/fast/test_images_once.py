"""Policy and reference encode an image once between them, where both make the same of it; losses
and weights are the same.
"""

import shutil
from collections import Counter

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.run_folder import RunFolder
from align.training.build import build_run
from tests.support.shards import falsify_features
from tests.support.small_run import arguments

IMAGED = ["data.benign={source: miniature, subset: image_benign, rows: 24}", "train.save_strategy=no"]
STEPS = 2
BFLOAT16 = ["model.dtype=bfloat16", "train.bf16=true", "train.gradient_checkpointing=true"]


def ready(model, out, method, *more):
    """A trainer whose rows all have images."""
    composed = compose_run(arguments(model, out, f"method={method}", f"train.max_steps={STEPS}", *IMAGED, *more))
    return build_run(composed, training_data(composed.config), RunFolder(out)).trainer


def trained(trainer):
    """(Losses, weights, {whether by the policy: images that were encoded}), once it is through."""
    passes = []
    log = trainer.log
    # A log line empties what was computed.
    heads = dict.fromkeys((trainer.head, trainer.reference_head))
    trainer.log = lambda *args, **kwargs: (
        passes.extend(one for head in heads for one in head.passes),
        log(*args, **kwargs),
    )
    trainer.train()
    encoded = Counter()
    for one in passes:
        encoded[one.is_policy] += one.images
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return losses, weights, encoded


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dpo", []),
        pytest.param("dpo", BFLOAT16, marks=pytest.mark.slow),
        pytest.param("unlearning", [], marks=pytest.mark.slow),
        ("safe_unlearning", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_each_is_encoded_once_a_step(method, settings, tiny, family_name, tmp_path):
    twice = ready(tiny(family_name), tmp_path / "twice", method, *settings)
    twice.head.images.reuse.remembers = False
    losses, weights, encoded = trained(ready(tiny(family_name), tmp_path / "once", method, *settings))
    other_losses, other_weights, by_each = trained(twice)
    shown = STEPS * 8  # each step has eight rows
    assert by_each[True] == shown
    assert by_each[False] > 0
    assert encoded.total() == shown
    rounding = 0.01 if settings else 1e-6
    assert losses == pytest.approx(other_losses, rel=rounding)
    for name, weight in weights.items():
        assert (weight - other_weights[name]).abs().max() <= 100 * rounding * weight.abs().max(), name


@pytest.mark.parametrize(
    "settings",
    [
        ["trainable=multi_modal_projector"],
        ["lora.towers=language_model,vision_tower", "lora.target_modules=q_proj,vision_tower:fc1"],
        ["lora=null", "trainable=language_model"],
    ],
    ids="-".join,
)
def test_what_the_reference_may_see_otherwise_it_encodes_for_itself(settings, tiny, tmp_path):
    encoded = trained(ready(tiny("llava"), tmp_path / "run", "dpo", *settings))[2]
    assert encoded == {True: STEPS * 8, False: STEPS * 8}


def test_an_adapter_of_the_tower_that_a_run_continues_is_not_the_same_as_none(tiny, tmp_path):
    words = ["lora.towers=language_model,vision_tower", "lora.target_modules=q_proj,vision_tower:fc1"]
    first = ready(tiny("llava"), tmp_path / "first", "sft", *words)
    first.train()
    first.save_model(str(tmp_path / "adapter"))
    assert any("vision_tower" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    continued = ready(tiny("llava"), tmp_path / "second", "dpo", f"model.adapter={tmp_path / 'adapter'}")
    assert not continued.head.images.reuse.remembers


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of stored features."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vsil-align" / "features"


@pytest.mark.long
@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    "method", [pytest.param(it, marks=pytest.mark.slow) for it in ("dpo", "sft", "safe_unlearning")]
)
def test_another_run_takes_what_was_stored_and_ends_with_the_same_weights(
    method, tiny, family_name, tmp_path, cache, capsys
):
    model = tiny(family_name)
    losses, weights, encoded = trained(ready(model, tmp_path / "without", method))
    runs = [ready(model, tmp_path / name, method, "stored_features=1") for name in ("first", "second")]
    for run, passes in zip(
        runs, (encoded.total(), 8), strict=True
    ):  # the first that are there are encoded all the same
        again, other_weights, new = trained(run)
        assert losses == pytest.approx(again, rel=1e-6)
        assert new.total() <= passes
        for name, weight in weights.items():
            assert (weight - other_weights[name]).abs().max() <= 1e-4 * weight.abs().max(), name
    assert len(list(cache.glob("*/*.safetensors"))) == STEPS * 8
    assert "anew" not in capsys.readouterr().err

    other = ready(model, tmp_path / "other", method, "stored_features=1", "model.dtype=bfloat16")
    assert trained(other)[2].total() == encoded.total()  # a model of its own


def test_methods_share_what_is_stored_and_a_base_with_another_projector_does_not(tiny, tmp_path, cache):
    encoded = trained(ready(tiny("llava"), tmp_path / "sft", "sft", "stored_features=1"))[2]
    assert encoded.total() == STEPS * 8
    after = trained(ready(tiny("llava"), tmp_path / "dpo", "dpo", "stored_features=1"))[2]
    assert after.total() < STEPS * 8

    base = AutoModelForImageTextToText.from_pretrained(tiny("llava"))
    base.model.multi_modal_projector.linear_2.bias.data[0] += 1e-3
    base.save_pretrained(tmp_path / "other")
    for file in tiny("llava").iterdir():
        if not (tmp_path / "other" / file.name).exists():
            shutil.copy(file, tmp_path / "other")
    assert trained(ready(tmp_path / "other", tmp_path / "own", "sft", "stored_features=1"))[2] == encoded


def test_features_that_are_not_the_models_are_thrown_away(tiny, tmp_path, cache, capsys):
    losses, _, encoded = trained(ready(tiny("llava"), tmp_path / "first", "sft", "stored_features=1"))
    for file in cache.glob("*/*.safetensors"):
        falsify_features(file)
    again, _, new = trained(ready(tiny("llava"), tmp_path / "second", "sft", "stored_features=1"))
    assert new == encoded
    assert again == pytest.approx(losses, rel=1e-6)
    assert "encoded again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["trainable=multi_modal_projector"], "stored_features=1: .*projector is trained"),
        (
            ["lora.towers=language_model,vision_tower", "lora.target_modules=q_proj,vision_tower:fc1"],
            "vision tower .*is trained",
        ),
        (["stored_features=0"], "expected GiB above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_features_that_cannot_be_stored_are_refused(settings, said, tiny, tmp_path, cache):
    with pytest.raises(UserError, match=said):
        ready(tiny("llava"), tmp_path / "run", "sft", "stored_features=1", *settings)


def test_images_of_the_same_pixels_are_one_and_others_are_not(tiny, tmp_path):
    trainer = ready(tiny("llava"), tmp_path / "run", "dpo")
    first, second = ([trainer.train_dataset[i]] for i in (0, 1))
    keys = [trainer.data_collator(rows)["layout"]["image_keys"].tolist() for rows in (first, second, first)]
    assert keys[0] == keys[2] != keys[1]
    assert {len(key) for of in keys for key in of} == {16}

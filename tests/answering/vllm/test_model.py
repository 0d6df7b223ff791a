"""Responses through an engine in another process: those of transformers, or an error that says what differs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from align.answering.engines import model_on_this_machine
from align.answering.vllm.agreement import Reference, Scored, agreement_of, rows_to_check
from align.answering.vllm.asking import refuse_other_prompt
from align.answering.vllm.model import VllmModel
from align.answering.vllm.process import Reply
from align.answering.vllm.served import engine_settings, served, why_merged
from align.errors import UserError
from align.miniature.rows import evaluation_rows
from align.models.loading import ModelSource
from align.models.published_names import lacks_published_names
from align.rows import Row
from align.settings import Generation, ModelSettings, Vllm
from tests.support.adapters import adapted, saved
from tests.support.mixed_rows import mixed_rows
from tests.support.vllm_environments import stand_in

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def source(tiny, family_name):
    return ModelSource(ModelSettings(name="tiny", path=str(tiny(family_name)), dtype="float32"))


def through(source, python, **generation):
    vllm = Vllm(python=python, max_num_seqs=4, check_rows=4)
    return model_on_this_machine(source, Generation(max_new_tokens=6, engine="vllm", vllm=vllm, **generation))


def answered(model, rows):
    found = {answer.id: replace(answer, seconds=0.0) for answer in model.answers(rows)}
    assert sorted(found) == sorted(row.id for row in rows)
    return found


@pytest.mark.slow
def test_its_responses_are_those_of_transformers_with_an_adapter_that_it_serves(source, loaded, family_name, tmp_path):
    tuned = replace(source, adapter=str(saved(adapted(loaded(family_name)), tmp_path / "adapter")))
    rows = mixed_rows(1)[::3]
    model = through(tuned, stand_in(tmp_path))
    assert isinstance(model, VllmModel)
    plain = model_on_this_machine(tuned, Generation(max_new_tokens=6))
    assert model.prompt(rows[0]) == plain.prompt(rows[0])
    assert {key: model.identity[key] for key in plain.identity} == plain.identity
    assert model.identity["engine"]["name"] == "vllm"
    expected = answered(plain, rows)
    assert answered(model, rows) == expected
    children = model._children
    assert answered(model, rows[:2]) == {row.id: expected[row.id] for row in rows[:2]}
    assert model._children is children  # one start for several benchmarks
    model.release()
    assert (model.agreement.rows, model.agreement.with_images) == (4, 2)
    assert model.agreement.identical == 4
    assert model.agreement.largest < 1e-5


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no_beginning", "differ from token 0"),
        ("other_image", "log-probability"),
        ("ignores_adapter", "log-probability"),
    ],
)
def test_a_difference_to_transformers_is_found_before_a_response_is_used(
    fault, said, source, loaded, family_name, tmp_path
):
    tuned = replace(source, adapter=str(saved(adapted(loaded(family_name)), tmp_path / "adapter")))
    model = through(tuned, stand_in(tmp_path, fault))
    with pytest.raises(UserError, match=said):
        list(model.answers(mixed_rows(1)))
    assert model._children is None


def test_what_an_engine_cannot_serve_is_merged(loaded, source, family_name, tmp_path):
    adapters = {
        "language model": {},
        "dora": {"use_dora": True},
        "tower": {"towers": ["language_model", "vision_tower"], "target_modules": ["q_proj", "v_proj", "fc1"]},
    }
    family = source.load_without_weights().family
    why = {
        name: why_merged(saved(adapted(loaded(family_name), **lora), tmp_path / name), family)
        for name, lora in adapters.items()
    }
    assert why["language model"] is None
    assert "use_dora=True" in why["dora"]
    assert "vision_tower" in why["tower"]
    in_full = saved(adapted(loaded(family_name), in_full=["multi_modal_projector"]), tmp_path / "in full")
    assert "modules_to_save" in why_merged(in_full, family)
    tuned = replace(source, adapter=str(tmp_path / "tower"))
    files = served(tuned.load_without_weights(), tuned)
    assert (files.adapter, files.rank) == (None, 0)
    merged = ModelSource(replace(source.settings, path=files.folder))
    rows = mixed_rows(1)[:8]
    generation = Generation(max_new_tokens=6)
    expected = answered(model_on_this_machine(tuned, generation), rows)
    assert answered(model_on_this_machine(merged, generation), rows) == expected
    files.remove()
    assert not list((tmp_path / "cache" / "vsil-align" / "vllm").iterdir())


def test_weights_are_served_under_published_names(source, family_name):
    known = source.load_without_weights()
    assert lacks_published_names(Path(known.path)) == (family_name == "llava")
    files = served(known, source)
    assert (files.folder == known.path) == (family_name != "llava")
    rows = mixed_rows(1)[:4]
    generation = Generation(max_new_tokens=6)
    renamed = ModelSource(replace(source.settings, path=files.folder))
    expected = answered(model_on_this_machine(source, generation), rows)
    assert answered(model_on_this_machine(renamed, generation), rows) == expected
    files.remove()


def test_quantized_models_unknown_engines_and_environments_without_vllm_are_refused(source, tmp_path):
    generation = Generation(engine="vllm", vllm=Vllm(python=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="absent"):
        model_on_this_machine(source, generation)
    with pytest.raises(UserError, match="no package vllm"):
        model_on_this_machine(source, Generation(engine="vllm"))
    with pytest.raises(UserError, match="sglang.*transformers, vllm, auto"):
        model_on_this_machine(source, Generation(engine="sglang"))
    with pytest.raises(UserError, match="budget"):
        through(source, stand_in(tmp_path), thinking="budget=4")
    known = source.load_without_weights()
    quantized = replace(source.settings, quantization="nf4")
    with pytest.raises(UserError, match="nf4"):
        served(replace(known, settings=quantized), ModelSource(quantized))
    assert not isinstance(model_on_this_machine(source, Generation(engine="auto")), VllmModel)  # no GPU, or no vLLM


@pytest.mark.parametrize(("dtype", "expected"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_the_engine_gets_the_dtype_in_which_transformers_loads_the_model(source, dtype, expected):
    known = ModelSource(replace(source.settings, dtype=dtype)).load_without_weights()
    assert engine_settings(known)["dtype"] == expected


def test_rows_to_check_are_half_with_images_where_there_are_both():
    images, texts = evaluation_rows("vsil", 10), [Row(f"text {i}", "what is it") for i in range(10)]
    counts = {
        name: [sum(bool(row.images) == shown for row in rows_to_check(rows, 6)) for shown in (True, False)]
        for name, rows in {"both": images + texts, "images": images, "texts": texts, "few": texts[:1]}.items()
    }
    assert counts == {"both": [3, 3], "images": [6, 0], "texts": [3, 3], "few": [4, 1]}


@pytest.mark.parametrize(
    ("read", "place"),
    [([5, 9, 9, 6], 0), ([1, 5, 9, 6], 3), ([1, 5, 9, 9, 9, 9, 6], 4), ([1, 5, 9, 9, 6, 6], 5)],
    ids=["no beginning", "a placeholder without its image", "expanded twice", "one token more"],
)
def test_a_prompt_that_was_read_differently_is_refused_with_its_place(read, place):
    expected = [1, 5, 9, 9, 6]
    refuse_other_prompt(Reply("row 7", expected), expected)
    with pytest.raises(UserError, match=f"row 7, expected 5 .*token {place}"):
        refuse_other_prompt(Reply("row 7", read), expected)


def test_a_response_that_fills_the_context_is_compared_in_its_first_tokens():
    scored = [Scored(Row("a", "p"), [4, 5, 6], [-0.1, -0.2, -0.3]), Scored(Row("b", "p"), [4], [-0.1])]
    found = agreement_of(Reference(scored, [2], torch.float32), [[-0.1, -0.2], []], [[4, 5, 6], [9]], 0.01)
    assert (found.rows, found.tokens, found.identical, found.largest) == (2, 2, 1, 0.0)

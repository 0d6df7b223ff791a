"""Answers of a local model: batched ones are the answers one by one, longest prompts first, and
only its end of turn ends them.
"""

from dataclasses import replace

import pytest
from PIL import Image

from align.answering import local_model
from align.answering.engines import base_model
from align.answering.generate import _answer, _written, end_of_turn_ids, generate, longest_first
from align.answering.local_model import LocalModel, devices
from align.answering.thoughts import NOTHING_HIDDEN
from align.batches.rendering import Renderer
from align.data.images import encode_png
from align.errors import UserError
from align.miniature.rows import evaluation_rows
from align.models.loading import ModelSource, checkpoint, load
from align.rows import Row
from align.settings import Generation, ModelSettings
from tests.support.adapters import adapted, saved
from tests.support.divergence import divergences, gap, tokens_of
from tests.support.mixed_rows import mixed_rows

NEAR = 1e-4
"""Of two logits: nearer ones may change places when the sums that they are made of are taken in another order."""


def test_batched_answers_are_the_answers_one_by_one(loaded, family_name):
    it, rows = loaded(family_name), mixed_rows(1)
    assert {bool(row.images) for row in rows} == {True, False}
    assert len({it.renderer.prompt_length(row) for row in rows}) > 5
    alone = tokens_of(it, rows, Generation(max_new_tokens=8, batch_size=1))
    assert len({tuple(tokens) for tokens in alone.values()}) > len(rows) / 2
    for size in (3, 16):
        batched = tokens_of(it, rows, Generation(max_new_tokens=8, batch_size=size))
        apart = divergences(it, rows, alone, batched)
        print(f"{family_name}, batches of {size}: {len(apart)} of {len(rows)} answers differ {apart}")
        assert all(one.gap < NEAR for one in apart)


@pytest.mark.long
@pytest.mark.slow
def test_batched_answers_of_the_trained_miniature_are_those_one_by_one(family_name):
    it, rows = load(ModelSettings(name="mini", build=f"align.miniature.bases:mini_{family_name}")), mixed_rows(8)
    assert len(rows) > 200
    alone = tokens_of(it, rows, Generation(max_new_tokens=20, batch_size=1))
    for size in (3, 32):
        assert tokens_of(it, rows, Generation(max_new_tokens=20, batch_size=size)) == alone


def test_the_gap_at_a_divergence_is_that_of_the_step_where_it_happens(loaded, family_name):
    """The measure that lets answers differ must not let everything pass."""
    it, rows = loaded(family_name), mixed_rows(1)[:3]
    alone = tokens_of(it, rows, Generation(max_new_tokens=6, batch_size=1))
    other = alone | {rows[1].id: [*alone[rows[1].id][:4], 0]}
    (found,) = divergences(it, rows, alone, other)
    assert (found.row, found.step) == (rows[1].id, 4)
    assert found.gap == gap(it, rows[1], alone[rows[1].id][:4]) > NEAR


def test_the_longest_prompts_are_answered_first_and_equal_ones_in_the_order_of_the_rows(loaded, family_name):
    it, rows = loaded(family_name), mixed_rows(1)
    lengths = {row.id: len(it.renderer.render(row).prompt_ids) for row in rows}
    wanted = sorted(lengths, key=lambda row_id: -lengths[row_id])  # sorted() is stable
    assert wanted != list(lengths)
    assert [row.id for row in longest_first(it.renderer, rows).rows] == wanted
    given = [answer.id for answer in generate(it.model, it.renderer, rows, Generation(max_new_tokens=1, batch_size=5))]
    assert given == wanted


@pytest.mark.parametrize("size", [(40, 30), (300, 30), (700, 500)])
@pytest.mark.parametrize("aspect", [None, "pad"])
def test_a_prompts_length_is_told_from_the_sizes_of_its_images(any_renderer, size, aspect):
    it = Renderer(any_renderer.processor, any_renderer.family, ModelSettings(image_aspect_ratio=aspect))
    images = [encode_png(Image.new("RGB", sides, "red")) for sides in (size, size[::-1], (64, 64))]
    for n in range(4):
        row = Row("a", "what is this", images=tuple(images[:n]))
        assert it.prompt_length(row) == len(it.render(row).prompt_ids)


def test_a_image_that_is_no_image_is_named_before_any_answer(loaded):
    it = loaded("llava")
    rows = [*mixed_rows(1)[:3], Row("broken", "what is this", images=(encode_png(Image.new("RGB", (8, 8))),))]
    rows[-1] = replace(rows[-1], images=(replace(rows[-1].images[0], bytes=b"no image"),))
    with pytest.raises(UserError, match="row broken: image .* cannot be read"):
        next(generate(it.model, it.renderer, rows, Generation(max_new_tokens=1, batch_size=1)))


def test_the_end_of_turn_ends_an_answer(loaded, family_name):
    it = loaded(family_name)
    renderer = Renderer(it.processor, it.family)
    ends = end_of_turn_ids(it.model, renderer)
    assert (
        it.processor.tokenizer.convert_tokens_to_ids({"llava": "</s>", "qwen2_vl": "<|im_end|>"}[family_name]) in ends
    )
    words = it.processor.tokenizer.convert_tokens_to_ids(["sorry", "knife"])
    row = evaluation_rows("vsil", 1)[0]

    def answer(tokens):
        return _answer(_written(renderer.render(row), tokens, ends, 0.0), renderer, NOTHING_HIDDEN)

    ended = answer([*words, ends[0], renderer.pad_token_id])
    assert (ended.response, ended.finish_reason, ended.new_tokens) == ("sorry knife", "stop", 2)
    cut = answer(words)
    assert (cut.response, cut.finish_reason, cut.new_tokens) == ("sorry knife", "length", 2)


def test_a_models_own_generation_settings_do_not_leak_in(loaded):
    it = loaded("llava")
    renderer, rows = Renderer(it.processor, it.family), evaluation_rows("vsil", 3)
    plain = [a.response for a in generate(it.model, renderer, rows, Generation(max_new_tokens=8, batch_size=3))]
    it.model.generation_config.no_repeat_ngram_size = 1
    it.model.generation_config.suppress_tokens = list(range(20))
    assert [a.response for a in generate(it.model, renderer, rows, Generation(max_new_tokens=8, batch_size=3))] == plain
    assert it.model.generation_config.no_repeat_ngram_size == 1


@pytest.mark.slow_for_qwen2_vl
def test_the_base_answers_without_the_adapter_that_a_run_continues(tiny, loaded, family_name, tmp_path):
    adapter = saved(adapted(loaded(family_name)), tmp_path)
    base = ModelSettings(name="tiny", path=str(tiny(family_name)), dtype="float32")
    rows, generation = evaluation_rows("vsil", 3), Generation(max_new_tokens=8)
    alone, continued = (base_model(settings, generation) for settings in (base, replace(base, adapter=str(adapter))))
    assert (continued.identity, continued.name) == (alone.identity, alone.name)
    answers = [[answer.response for answer in model.answers(rows)] for model in (alone, continued)]
    assert answers[0] == answers[1]
    it = load(base, str(adapter))
    tuned = [answer.response for answer in generate(it.model, Renderer(it.processor, it.family), rows, generation)]
    assert tuned != answers[0]


@pytest.mark.slow_for_qwen2_vl
def test_a_checkpoint_is_loaded_once_for_several_sets_and_again_after_its_release(
    tiny, loaded, family_name, tmp_path, monkeypatch
):
    adapter, load_on, loads = saved(adapted(loaded(family_name)), tmp_path), local_model.load_on, []

    def counted(device, source):
        loads.append(device)
        return load_on(device, source)

    monkeypatch.setattr(local_model, "load_on", counted)
    settings = ModelSettings(name="tiny", path=str(tiny(family_name)), dtype="float32")
    rows, generation = mixed_rows(1)[:6], Generation(max_new_tokens=4)
    source = checkpoint(str(adapter), settings)
    assert source == ModelSource(settings, str(adapter))
    it, model = source.load(), LocalModel(source, generation)
    assert (model.identity, loads) == ({"weights": it.weights}, [])
    assert list(model.answers([])) == loads == []
    expected = {answer.id: answer.response for answer in generate(it.model, it.renderer, rows, generation)}
    for _ in range(2):
        assert {answer.id: answer.response for answer in model.answers(rows)} == expected
    assert len(loads) == 1
    model.release()
    assert {answer.id: answer.response for answer in model.answers(rows)} == expected
    assert len(loads) == 2


def test_how_many_processes_there_are_and_where_they_compute(monkeypatch):
    monkeypatch.setattr(local_model, "has_gpu", lambda: False)
    assert [devices(n) for n in (None, 1, 3)] == [["cpu"], ["cpu"], ["cpu"] * 3]
    monkeypatch.setattr(local_model, "has_gpu", lambda: True)
    monkeypatch.setattr(local_model.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")  # the launcher of a run gave this process the second
    assert [devices(n) for n in (None, 1, 3)] == [["cuda:0", "cuda:1"], ["cuda:1"], ["cuda:0", "cuda:1", "cuda:0"]]
    with pytest.raises(UserError, match="generation.num_processes=0: expected at least 1"):
        devices(0)

"""Answers of a local model: batched ones are the answers one by one, and only its end of turn ends them."""

from dataclasses import replace

from align.data.rendering import Renderer
from align.generation.local import LocalModel, end_of_turn_ids, generate
from align.generation.local import _answer as module_answer
from align.miniature.rows import evaluation_rows
from align.models.loading import load
from align.settings import Generation, ModelSettings
from tests.support.adapters import adapted, saved


def test_batched_answers_are_the_answers_one_by_one(loaded, family_name):
    it = loaded(family_name)
    rows = [row for kind in ("vsil", "vsil_free") for row in evaluation_rows(kind, 6)]
    rows += [row.__class__(row.id + "-text", row.prompt) for row in rows[:4]]
    renderer = Renderer(it.processor, it.family)
    batched = list(generate(it.model, renderer, rows, Generation(max_new_tokens=12, batch_size=16)))
    alone = list(generate(it.model, renderer, rows, Generation(max_new_tokens=12, batch_size=1)))
    assert [a.response for a in batched] == [a.response for a in alone]
    assert [a.finish_reason for a in batched] == [a.finish_reason for a in alone]


def test_the_end_of_turn_ends_an_answer(loaded, family_name):
    it = loaded(family_name)
    renderer = Renderer(it.processor, it.family)
    ends = end_of_turn_ids(it.model, renderer)
    assert (
        it.processor.tokenizer.convert_tokens_to_ids({"llava": "</s>", "qwen2_vl": "<|im_end|>"}[family_name]) in ends
    )
    words = it.processor.tokenizer.convert_tokens_to_ids(["sorry", "knife"])
    row = evaluation_rows("vsil", 1)[0]
    ended = module_answer(row, [*words, ends[0], renderer.pad_token_id], ends, renderer, 0.0)
    assert (ended.response, ended.finish_reason, ended.new_tokens) == ("sorry knife", "stop", 2)
    cut = module_answer(row, words, ends, renderer, 0.0)
    assert (cut.response, cut.finish_reason, cut.new_tokens) == ("sorry knife", "length", 2)


def test_a_models_own_generation_settings_do_not_leak_in(loaded):
    it = loaded("llava")
    renderer, rows = Renderer(it.processor, it.family), evaluation_rows("vsil", 3)
    plain = [a.response for a in generate(it.model, renderer, rows, Generation(max_new_tokens=8, batch_size=3))]
    it.model.generation_config.no_repeat_ngram_size = 1
    it.model.generation_config.suppress_tokens = list(range(20))
    assert [a.response for a in generate(it.model, renderer, rows, Generation(max_new_tokens=8, batch_size=3))] == plain
    assert it.model.generation_config.no_repeat_ngram_size == 1


def test_the_base_answers_without_the_adapter_that_a_run_continues(tiny, loaded, family_name, tmp_path):
    adapter = saved(adapted(loaded(family_name)), tmp_path)
    base = ModelSettings(name="tiny", path=str(tiny(family_name)), dtype="float32")
    rows, generation = evaluation_rows("vsil", 3), Generation(max_new_tokens=8)
    alone, continued = (LocalModel(settings, generation) for settings in (base, replace(base, adapter=str(adapter))))
    assert (continued.identity, continued.name) == (alone.identity, alone.name)
    answers = [[answer.response for answer in model.answers(rows)] for model in (alone, continued)]
    assert answers[0] == answers[1]
    it = load(base, str(adapter))
    tuned = [answer.response for answer in generate(it.model, Renderer(it.processor, it.family), rows, generation)]
    assert tuned != answers[0]

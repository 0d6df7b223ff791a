"""Lengths of rows: measured once, in several processes or one, and those that rendering makes."""

import json
import shutil

import pytest
from PIL import Image

from align.batches.rendering import Renderer
from align.errors import BadRow, UserError
from align.families import family_of
from align.models.processors import load_processor
from align.rows import ImageRef, Row
from align.settings import ModelSettings
from tests.conftest import REAL
from tests.support.local_rows import data_of, dry_run, local_run, rows, write_image

pytestmark = pytest.mark.usefixtures("cache")


def test_rows_are_measured_once_and_those_that_changed_again(tiny, tmp_path, cache, monkeypatch):
    measured = []
    own = Renderer.measure
    monkeypatch.setattr(
        Renderer,
        "measure",
        lambda self, row, answers, *history: measured.append(row.id) or own(self, row, answers, *history),
    )
    words = [*local_run(tiny("llava"), tmp_path, rows()), "dry_run=true"]
    dry_run(words)
    assert len(measured) == 40
    measured.clear()
    dry_run(words)
    assert measured == []
    dry_run([*local_run(tiny("llava"), tmp_path, rows(h5={"response": "a cup"})), "train.max_length=90"])
    assert measured == ["own/h5"]
    for file in (cache / "rows").glob("*.jsonl"):
        file.write_text("damaged\n" + file.read_text()[:-9])
    measured.clear()
    dry_run(words)
    assert len(measured) == 40


def test_many_rows_are_measured_in_several_processes_to_the_same_result(tiny, tmp_path, monkeypatch):
    from align.training import row_checks

    words = local_run(tiny("qwen2_vl"), tmp_path, rows(600, h300={"response": "red " * 200}))

    def refusal():
        with pytest.raises(UserError) as refused:
            dry_run(words)
        return str(refused.value)

    alone = refusal()
    for file in (tmp_path / "cache" / "vsil-align" / "rows").iterdir():
        file.unlink()
    monkeypatch.setattr(row_checks, "MANY", 1)
    assert refusal() == alone
    assert "own/h300" in alone


def test_lengths_are_those_that_rendering_makes(any_renderer, mini_rows, tmp_path):
    from align.batches.collators import Collator

    write_image(tmp_path / "wide.png", (600, 90))
    from dataclasses import replace

    from align.rows import ImageRef

    wide = [
        replace(row, id=f"{row.id}-wide", images=(ImageRef(path=str(tmp_path / "wide.png")),))
        for row in mini_rows["image_benign"]
    ]
    collator = Collator(any_renderer)
    for row in [*(row for of in mini_rows.values() for row in of), *wide]:
        prompt, answers = collator.measure(row)
        rendered = collator.render(row)["response"]
        assert (prompt, answers["response"]) == (len(rendered.prompt_ids), rendered.answer_ids)


def test_no_call_for_a_row_grows_with_the_vocabulary(any_renderer, mini_rows, monkeypatch):
    row = mini_rows["image_benign"][0]
    expected = any_renderer.render(row, row.response).answer_ids
    tokenizer = type(any_renderer.processor.tokenizer)

    def grows(*_, **__):
        raise AssertionError("the whole vocabulary was listed for one row")

    for name in ("get_vocab", "get_added_vocab", "__len__"):
        monkeypatch.setattr(tokenizer, name, grows)
    for name in ("vocab", "added_tokens_decoder", "added_tokens_encoder"):
        monkeypatch.setattr(tokenizer, name, property(grows))
    assert any_renderer.render(row, row.response).answer_ids == expected
    any_renderer.measure(row, [row.response])


def test_a_cache_of_another_shape_or_a_full_disk_only_costs_time(tiny, tmp_path, cache, monkeypatch):
    words = local_run(tiny("llava"), tmp_path, rows(4))
    dry_run(words)
    (file,) = (cache / "rows").glob("*.jsonl")
    written = file.read_text()
    for line in ('{"a": 1}', "[]", "null", '{"key": "k", "lengths": 3}'):
        file.write_text(f"{line}\n{written}")
        data_of(words)
    file.unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("align.training.row_checks.append_jsonl", full)
    dry_run(words)


def test_another_patch_size_is_measured_anew(tiny, tmp_path):
    base = shutil.copytree(tiny("llava"), tmp_path / "base")
    write_image(tmp_path / "a.png")
    words = local_run(base, tmp_path, [row | {"image": "a.png", "harm_in": "text"} for row in rows(4)], view="image")
    dry_run([*words, "train.max_length=60"])
    file = base / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"patch_size": settings["patch_size"] // 2}))
    with pytest.raises(UserError, match="4 of 4 training rows"):
        dry_run([*words, "train.max_length=60"])


@pytest.mark.parametrize(("size", "fits"), [((2000, 2), True), ((60_000, 1600), False)])
def test_a_padded_image_is_as_large_as_its_square(shared, tmp_path, size, fits):
    settings = ModelSettings(image_aspect_ratio="pad")
    it = Renderer(load_processor(str(shared / "hub" / REAL["llava"])), family_of("llava"), settings)
    Image.new("L", size).save(tmp_path / "wide.png")
    row = Row("r", "what is this", images=(ImageRef(path=str(tmp_path / "wide.png")),))
    if fits:
        assert it.measure(row, [])[0] == len(it.render(row).prompt_ids)
    else:
        with pytest.raises(BadRow, match="60000 x 1600"):
            it.measure(row, [])
        with pytest.raises(BadRow, match="60000 x 1600"):
            it.render(row)

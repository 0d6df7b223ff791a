"""Rows that a model cannot be asked: each is one invalid item with a reason, and the others go on."""

import json

import pytest
from PIL import Image

from align.answering.generate import generate
from align.cli import main
from align.data.images import encode_png
from align.models.loading import load_without_weights
from align.models.weights import fingerprint_of
from align.rows import Row
from align.settings import Generation, ModelSettings
from tests.support.published import write_jsonl

LINE = encode_png(Image.new("RGB", (300, 1), "red"))


@pytest.fixture
def own(tmp_path):
    """A benchmark of 40 rows: one image that is a line, one prompt longer than the tiny models' 128
    positions, one special token.
    """
    rows = [{"id": f"r{i}", "prompt": f"what is this {i}", "role": "benign"} for i in range(40)]
    Image.new("RGB", (300, 1), "red").save(tmp_path / "line.png")
    rows[3]["image"] = "line.png"
    rows[5]["prompt"] = "red " * 200
    rows[7]["prompt"] = "what is <|image_pad|>"
    write_jsonl(tmp_path / "own.jsonl", *rows)
    return tmp_path / "own.jsonl"


@pytest.mark.parametrize(
    "more", [[], pytest.param(["generation.num_processes=2"], marks=pytest.mark.slow)], ids=["one process", "two"]
)
@pytest.mark.long
def test_rows_that_cannot_be_asked_are_invalid_and_the_others_are_answered(tiny, own, tmp_path, capsys, more):
    words = ["benchmark=local", f"path={own}", "judge=refusal_match", "generation.max_new_tokens=2", *more]
    out = tmp_path / "out"
    assert main(["eval", f"model={tiny('qwen2_vl')}", f"output_dir={out}", *words]) == 1  # 7.5% are invalid: withheld
    folder = out / "evaluation" / "local"
    records = {record["id"]: record for record in map(json.loads, (folder / "responses.jsonl").open())}
    assert {key for key, record in records.items() if record["finish_reason"] == "unusable"} == {"r3", "r5", "r7"}
    assert "line.png is 300 x 1" in records["r3"]["detail"]
    assert "128" in records["r5"]["detail"]
    assert "<|image_pad|>" in records["r7"]["detail"]
    summary = json.loads((folder / "summary.refusal_match.json").read_text())
    assert (summary["counts"]["invalid"], summary["invalid_reasons"]) == (3, {"unusable": 3})
    assert "cannot process 3 of 40 rows" in capsys.readouterr().out


@pytest.mark.slow_for_qwen2_vl
def test_an_answer_ends_with_the_models_context_whatever_is_beside_it(loaded, family_name):
    it = loaded(family_name)
    it.model.generation_config.eos_token_id = None
    rows = [Row("long", "red " * 100), Row("short", "red")]
    settings = Generation(max_new_tokens=60, batch_size=2)
    together = {answer.id: answer for answer in generate(it.model, it.renderer, rows, settings)}
    alone = [next(iter(generate(it.model, it.renderer, [row], settings))) for row in rows]
    assert [together[answer.id].response for answer in alone] == [answer.response for answer in alone]
    length = len(it.renderer.render(rows[0]).prompt_ids)
    assert together["long"].new_tokens <= 128 - length < 60


def test_another_image_processor_is_another_model(tiny, tmp_path, monkeypatch):
    """With torchvision transformers takes another class for the same files, whose pixels differ."""
    from transformers import AutoProcessor

    settings = ModelSettings(name="tiny", path=str(tiny("llava")))
    before = load_without_weights(settings)
    processor = AutoProcessor.from_pretrained(settings.path)
    other = type("CLIPImageProcessorFast", (type(processor.image_processor),), {})
    processor.image_processor.__class__ = other
    monkeypatch.setattr("align.models.loading.load_processor", lambda *_: processor)
    assert load_without_weights(settings).weights != before.weights
    assert fingerprint_of([settings.path]) == fingerprint_of([settings.path])

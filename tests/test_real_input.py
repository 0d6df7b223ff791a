"""The documented command for real input, as a test: real processors, full vocabularies, real image sizes."""

import json

import pytest

from align.answering.generate import generate
from align.commands.merge import main as merge
from align.data.local import read_file
from align.models.loading import load_checkpoint
from align.models.merging import probe
from align.settings import Generation, Part
from tests.support.real_input import REFUSAL, check_answers, run


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.long
def test_training_on_real_input_teaches_the_answers_through_a_live_vision_path(family, shared, tmp_path):
    folder = run(family, shared, tmp_path)
    facts = check_answers(folder)
    assert facts["rows"] == facts["refused"] == facts["ended"] == 30
    assert facts["logits_changed"] == facts["compared_with_blank"] == 5
    safebench = json.loads((folder / "evaluation" / "safebench" / "summary.refusal_match.json").read_text())
    assert safebench["n"] == 20  # task_id 4 and 5 of ten categories
    vlsbench = json.loads((folder / "evaluation" / "vlsbench.text" / "summary.refusal_match.json").read_text())
    assert vlsbench["n"] == 2241
    asked = {json.loads(line)["id"] for line in (folder / "evaluation" / "safebench" / "responses.jsonl").open()}
    assert {item.split("_")[2] for item in asked} == {"4", "5"}
    assert merge([f"run={folder}", f"output_dir={tmp_path / 'merged'}"]) == 0
    adapted, merged = (load_checkpoint(str(path)) for path in (folder / "checkpoint", tmp_path / "merged"))
    with adapted.model.disable_adapter():
        assert (probe(adapted) - probe(merged)).abs().max() > 1e-2
    assert (probe(adapted) - probe(merged)).abs().max() < 1e-4
    rows = read_file(
        "check",
        Part(path=str(tmp_path / "harmful.jsonl"), image_root=str(shared / "data" / "figstep" / "images")),
        "harmful",
    ).rows[:4]
    answers = [generate(it.model, it.renderer, rows, Generation(max_new_tokens=32)) for it in (adapted, merged)]
    assert [answer.response for answer in answers[0]] == [answer.response for answer in answers[1]] == [REFUSAL] * 4

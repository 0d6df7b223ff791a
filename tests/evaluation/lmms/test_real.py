"""The real lmms_eval, where it is installed: it asks what we ask, so that it gets the answers that we get."""

import json

import datasets
import pytest
from PIL import Image

from align.cli import main
from align.report.run_results import row_of
from align.run_folder import RunFolder
from tests.support.adapters import adapted, saved

TASK = """
task: align_tiny
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6}}
process_results: !function utils.process
metric_list:
  - metric: right
    aggregation: !function utils.mean
    higher_is_better: true
metadata:
  version: 0.0
"""
UTILS = """
def visual(doc):
    return [doc["image"].convert("RGB")]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def process(doc, results):
    return {"right": float(doc["answer"] == results[0].strip())}

def mean(items):
    return sum(items) / len(items)
"""
WORDS = ("dog", "knife", "bomb", "book", "user", "assistant", "law", "people")
SETTINGS = [
    "generation.max_new_tokens=6",
    "judge=none",
    "model.dtype=float32",
    "model.system_prompt='user : people say no'",
]


def noise(i):
    """An image of no small number of colours, wide or high."""
    return Image.effect_noise((64 + 8 * i, 90 - 8 * i), 40 + 20 * i).convert("RGB")


def grey(i):
    """One that lmms_eval's qwen2_vl does not change: JPEG keeps a grey, and both its 28 pixels and
    the tiny model's 16 divide the size.
    """
    return Image.new("RGB", (112, 112 + 112 * (i % 2)), (30 * i,) * 3)


@pytest.fixture
def questions(tmp_path, family):
    """Eight questions over images, as rows of ours and as a task of lmms_eval's."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = []
    for i, word in enumerate(WORDS):
        {"llava": noise, "qwen2_vl": grey}[family](i).save(tmp_path / f"{i}.png")
        rows.append({"id": str(i), "prompt": f"show me this {word} here", "images": [f"{i}.png"], "role": "benign"})
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks, [row | {"question": row["prompt"], "image": Image.open(tmp_path / row["images"][0])} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "shown"), [("llava", ["model.image_aspect_ratio=pad"]), ("qwen2_vl", ["model.max_pixels=25088"])]
)
def test_it_gets_the_answers_that_we_get(lmms_eval, questions, loaded, tmp_path, family, shown, capfd):
    """With an adapter, a system prompt and settings of images. The share that is right is made of
    our own answers: half of them.
    """
    tasks, rows = questions
    adapter = saved(adapted(loaded(family)), tmp_path / "adapter")
    ours = [f"checkpoint={adapter}", *SETTINGS, *shown, f"output_dir={tmp_path / 'run'}"]
    assert main(["eval", *ours, "benchmark=local", f"path={tmp_path / 'ours.jsonl'}"]) == 0
    run = RunFolder(tmp_path / "run")
    lines = (run.evaluation / "local" / "responses.jsonl").read_text().splitlines()
    answers = [json.loads(line)["response"] for line in lines]
    assert len(set(answers)) > 2  # images and questions matter

    docs = [
        {"question": row["question"], "answer": answer if i % 2 else "no", "image": row["image"]}
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]
    datasets.Dataset.from_list(docs).to_parquet(tasks / "data.parquet")
    (tasks / "align_tiny.yaml").write_text(TASK.format(data=tasks / "data.parquet"))
    (tasks / "utils.py").write_text(UTILS)
    theirs = ["lmms_eval.tasks=align_tiny", f"lmms_eval.command={lmms_eval}", f"lmms_eval.extra.include_path={tasks}"]
    assert main(["eval", *ours, *theirs]) == 0, capfd.readouterr().err

    (samples,) = run.evaluation.rglob("*_samples_align_tiny.jsonl")
    found = {record["doc_id"]: record["filtered_resps"] for record in map(json.loads, samples.read_text().splitlines())}
    assert [found[i].strip() for i in range(len(answers))] == [answer.strip() for answer in answers]
    measured = row_of(run)["external"]["align_tiny"]
    assert [(metric["metric"], metric["value"], metric["n"]) for metric in measured["metrics"]] == [("right", 0.5, 8)]
    assert measured["version"][0].isdigit()
    if "lmms-eval" not in lmms_eval:  # a task that does not exist ends with status 0 and no file
        assert main(["eval", *ours, "lmms_eval.tasks=no_such_task", f"lmms_eval.command={lmms_eval}"]) == 2
        shown = capfd.readouterr().err
        assert "Tasks not found: no_such_task" in shown
        assert "there is no *results*.json" in shown

"""Run folders with answers, verdicts and what was asked, as an evaluation leaves them; harmless,
and in it whatever a test plants.
"""

import json

from PIL import Image

from align.data.images import pixel_hash
from align.rows import ImageRef
from tests.support.evaluated_runs import run

CATEGORIES = ("fire", "water")


def answered(
    folder, images, answer="answer {i}", reason="a reason", prompt="question {i}", harm_in="image", n=20, **more
):
    """A run whose sets `leaky` and `free` have `n` rows each, even ones answered safely; texts may
    hold {i}, the number of a row.
    """
    good = tuple(i % 2 == 0 for i in range(n))
    sets = {"leaky": ("vsil", (True,) * n), "free": ("vsil_free", good), "benign": ("benign", good)}
    categories = more.pop("categories", [CATEGORIES[i % 2] for i in range(n)])
    it = run(folder, sets=sets, categories=categories, **more)
    for name, (kind, of_set) in sets.items():
        place = it.evaluation / name
        lines = [
            {"id": str(i), "response": answer.format(i=i), "finish_reason": "stop" if i else "length", "seconds": 0.5}
            for i in range(n)
        ]
        _write(place / "responses.jsonl", lines)
        verdict = json.loads((place / "items.rule.jsonl").read_text().splitlines()[0])["label"]
        bad = "unsafe" if kind.startswith("vsil") else "wrong"
        verdicts = [
            {"id": str(i), "verdict": verdict if ok else bad, "reason": reason, "incoherent": False, "judge": "rule"}
            | {"judge_version": "1", "prompt_hash": None}
            for i, ok in enumerate(of_set)
        ]
        _write(place / "verdicts.rule.jsonl", verdicts)
        rows = [
            {
                "id": str(i),
                "role": "harmful" if kind.startswith("vsil") else "benign",
                "harm_in": "text" if name == "leaky" else harm_in,
                "twin": None,
                "category": categories[i],
                "columns": {"sub_category": f"sub {categories[i]}"},
                "prompt": prompt.format(i=i),
                "request": None,
                "caption": None,
                "reference": None,
                "images": [write_image(images, i)],
            }
            for i in range(n)
        ]
        _write(place / "rows.jsonl", rows)
    _write(it.path / "log.jsonl", [{"step": step, "loss": 1 / step} for step in range(1, 10)])
    return it


def write_image(folder, i):
    """A line's image: a file of one colour, one for five rows, and the hash of its pixels."""
    file = folder / f"{i % 5}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 300), (40 * (i % 5), 90, 200)).save(file)
    return {"path": str(file), "inside": None, "pixels": pixel_hash(ImageRef(path=str(file)), "row")}


def _write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
